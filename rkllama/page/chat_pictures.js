// Pictures for a model that sees: made small here, so that a phone's photograph neither fills the browser nor the request.

import { newId } from './chats_store.js';

/** Pictures that one message can have. */
export const MOST_PICTURES = 8;
/** Pixels of a picture's longer side; encoders scale what is larger themselves. */
const LONGEST_SIDE = 1536;
/** A PNG, such as a screenshot, stays one unless that makes it as large as this. */
const LARGEST_PNG = 1_500_000;

/** Read a file as `{id, url}`, with a data: URL of a JPEG or PNG. Raises where the browser cannot decode it. */
export async function readPicture(file) {
  const image = await createImageBitmap(file, { imageOrientation: 'from-image' });
  const scale = Math.min(1, LONGEST_SIDE / Math.max(image.width, image.height));
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  const paper = canvas.getContext('2d');
  const draw = () => paper.drawImage(image, 0, 0, canvas.width, canvas.height);
  draw();
  let blob = file.type === 'image/png' ? await encodeCanvas(canvas, 'image/png') : null;
  if (!blob || blob.size > LARGEST_PNG) {
    // JPEG has no transparency, and would make it black.
    paper.fillStyle = '#fff';
    paper.fillRect(0, 0, canvas.width, canvas.height);
    draw();
    blob = await encodeCanvas(canvas, 'image/jpeg');
  }
  image.close();
  return { id: newId(), url: await dataURL(blob) };
}

function encodeCanvas(canvas, type) {
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error(type))), type, 0.88);
  });
}

function dataURL(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** The pictures among what is dropped or pasted. */
export function picturesIn(transfer) {
  return Array.from(transfer?.files || []).filter((file) => file.type.startsWith('image/'));
}
