"""`rkllama run ./file.rkllm`: a model file that is run where it lies, whatever the models directory is."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence

from ..config import load_settings
from ..engine.service import LocalService
from ..errors import ModelNotFound, RKLLamaError, Unsupported
from ..files import write_file
from ..models.filename import EXTENSIONS, parse_platform, strip_extension
from ..models.modelfile import SIZE_LIMIT, ModelfileError, parse_foreign, render_modelfile
from ..models.scan import MODELFILE
from ..models.sidecars import NAMES
from ..models.vision.choice import find_encoder
from ..service import Service
from ..types import ModelInfo
from .output import print_note
from .terminal import show_warnings


def service_for(model: str, models: str, usual: Callable[[], Service]) -> tuple[Service, str]:
    """Return the service that has a model, `usual()` for a name, and the model's name there.

    A path has a slash: a bare name is a file's only where no model has it, and USER/REPO/FILE only if
    there is such a file. One in the directory `models` has a name. Raises ModelNotFound for no file.
    """
    path = os.path.expanduser(model)
    is_file = model.lower().endswith(EXTENSIONS) and os.path.isfile(path)
    if "/" not in model:
        service = usual()
        if not is_file or _has(service, model):
            return service, model
        service.close()
    elif not is_file:
        if model.startswith(("/", "./", "../", "~")):
            raise ModelNotFound(model[:300], hint="There is no model file of this name.")
        return usual(), model
    name = os.path.relpath(os.path.abspath(path), os.path.abspath(models))
    if not name.startswith("../") and name.count("/") <= 1:
        return usual(), name
    show_warnings()
    service = OneFile(path)
    return service, service.name


def lasting_name(service: Service, model: str) -> str:
    """Return the name by which `service_for` finds a model of a service again, in another process."""
    return service.path if isinstance(service, OneFile) and model == service.name else model


def _has(service: Service, model: str) -> bool:
    try:
        service.show(model)
    except ModelNotFound:
        return False
    except RKLLamaError:
        return True  # what is wrong is told when it is used
    return True


def _bring(target: str, path: str) -> None:
    """Make `path` a link to `target`, or a copy of a Modelfile without the program that it names.

    Who made the file need not be its owner: it may have been downloaded.
    """
    if os.path.basename(path) == MODELFILE:
        with contextlib.suppress(OSError, ModelfileError):
            with open(target, encoding="utf-8", errors="replace") as stream:
                modelfile, left_out = parse_foreign(stream.read(SIZE_LIMIT))
            if left_out is not None:
                print_note(left_out)
                write_file(path, render_modelfile(modelfile).encode())
                return
    os.symlink(target, path)


def _bring_encoder(path: str, folder: str) -> None:
    """Make a link in `folder` to the image encoder that lies beside the model at `path`, if there is one."""
    around, file = os.path.split(path)
    encoder = find_encoder(file, sorted(os.listdir(around)), parse_platform(file))
    if encoder is not None and os.path.isfile(os.path.join(around, encoder)):
        os.symlink(os.path.join(around, encoder), os.path.join(folder, encoder))


class OneFile(LocalService):
    """A service that has the model in the file `path`, with what lies beside it for its sake.

    Never a server's: that may be on another machine, and reads what lies in its models directory.
    """

    def __init__(self, path: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="rkllama-")
        self.path = os.path.abspath(path)
        file = os.path.basename(path)
        self.name = strip_extension(file)
        folder, beside = os.path.join(self._folder, self.name), os.path.dirname(path)
        os.mkdir(folder)
        for name in (file, MODELFILE, *NAMES, *(f"{self.name}.{name}" for name in NAMES)):
            target = os.path.abspath(os.path.join(beside, name))
            if os.path.isfile(target):
                _bring(target, os.path.join(folder, name))
        _bring_encoder(os.path.abspath(path), folder)
        settings = load_settings({"models": self._folder})
        super().__init__(settings, f"rkllama run {path}", exact_sampling=True)

    def create(
        self,
        name: str,  # noqa: ARG002 - as Service has it
        modelfile: str,  # noqa: ARG002
        files: Sequence[tuple[str, str]] = (),  # noqa: ARG002
        adapters: Sequence[tuple[str, str]] = (),  # noqa: ARG002
    ) -> ModelInfo:
        """Refuse what would be gone with this process."""
        raise Unsupported(
            "what a file outside the models directory is asked cannot be saved",
            hint="Make a model of it first: rkllama create NAME, with FROM and its path in a Modelfile.",
        )

    def close(self) -> None:
        """End every child, and remove what stood for the models directory."""
        super().close()
        shutil.rmtree(self._folder, ignore_errors=True)
