// The pictures that go with the next message: chosen, photographed, dropped or pasted.

import { pictureRow } from './chat-parts.js';
import { MOST_PICTURES, isPicture, readPicture } from './chat-pictures.js';
import { notify } from './dialog.js';
import { fileInput, fill, h, iconButton } from './dom.js';
import { t } from './words.js';

/** The pictures, above the text. `changed()` is called when there are others, `removed()` when one was taken away by hand. */
export class PictureTray {
  #does;
  #model = { name: '', sees: false };
  #files = fileInput({ accept: 'image/*', multiple: true }, (files) => this.take(files));
  #camera = fileInput({ accept: 'image/*', capture: 'environment' }, (files) => this.take(files));
  #filesButton = iconButton('image', t('chat.addPicture'), () => this.#files.click());
  #cameraButton = iconButton('camera', t('chat.takePicture'), () => this.#camera.click(), { class: 'chat-camera' });
  node = h('div', {});
  buttons = [this.#filesButton, this.#cameraButton, this.#files, this.#camera];
  pictures = [];

  constructor(does) {
    this.#does = does;
  }

  /** The model that is to see them. */
  setModel(model) {
    this.#model = model;
    this.#filesButton.hidden = this.#cameraButton.hidden = !model.sees;
  }

  clear() {
    this.#show([]);
  }

  /** Take what was dropped or pasted; whether there was a picture in it. */
  takeFrom(transfer) {
    const given = Array.from(transfer?.files || []).filter(isPicture);
    this.take(given);
    return given.length > 0;
  }

  async take(files) {
    if (!files.length) return;
    const { name, sees } = this.#model;
    if (!sees) {
      sayWrongPicture('chat.noEyes', { model: name || t('chat.noModel') });
      return;
    }
    for (const file of files) {
      if (this.#isFull()) break;
      await this.#read(file);
    }
    this.#does.changed();
  }

  #isFull() {
    const isFull = this.pictures.length >= MOST_PICTURES;
    if (isFull) sayWrongPicture('chat.manyPictures', { most: MOST_PICTURES });
    return isFull;
  }

  async #read(file) {
    try {
      const picture = await readPicture(file);
      if (this.pictures.length < MOST_PICTURES) this.#show([...this.pictures, picture]);
    } catch {
      sayBadPicture(file);
    }
  }

  #show(pictures) {
    this.pictures = pictures;
    fill(this.node, pictures.length > 0 && pictureRow(pictures, (picture) => this.#remove(picture)));
  }

  #remove(picture) {
    this.#show(this.pictures.filter((other) => other !== picture));
    this.#does.removed();
  }
}

export function sayBadPicture({ name }) {
  sayWrongPicture('chat.badPicture', { name });
}

function sayWrongPicture(key, values) {
  notify(t(key, values), { error: true });
}
