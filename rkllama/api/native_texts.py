"""What the documented REST API says, in French and English: messages, errors, progress.

French is the documented language; a client gets English by asking for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from ..errors import (
    AmbiguousName,
    BodyTooLarge,
    Cancelled,
    DiskFull,
    MethodNotAllowed,
    ModelNotFound,
    ModelsDirMissing,
    NoModelLoaded,
    NoSuchRoute,
    NotStored,
    NoWebSocket,
    QueueFull,
    RKLLamaError,
    ServerStopping,
    TooManyBodies,
    Unauthorized,
    UnsupportedEncoding,
)

Language = Literal["fr", "en"]

_PHRASES: dict[str, tuple[str, str]] = {
    # name: French, English
    "welcome": ("Bienvenue sur RK-LLama !", "Welcome to RK-LLama!"),
    "loaded": ("Modèle {name} chargé avec succès.", "Model {name} loaded successfully."),
    "unloaded": ("Modèle déchargé avec succès.", "Model unloaded successfully."),
    "removed": ("Le modèle a été supprimé avec succès.", "The model was removed successfully."),
    "already_loaded": (
        "Un modèle est déjà chargé. Veuillez d'abord le décharger.",
        "A model is already loaded. Please unload it first.",
    ),
    "load_unknown": (
        "Modèle {name} introuvable dans le dossier /models.",
        "Model {name} not found in the /models directory.",
    ),
    "pulling": ("Téléchargement {file} ({size} MB)...", "Downloading {file} ({size} MB)..."),
    "pull_failed": ("Erreur pendant le téléchargement : {error}", "Error during download: {error}"),
}

# An error's sentence is the one of its nearest class. What has to quote the error's own English ({text}) is
# English throughout: half a sentence in each language is neither.
_ERRORS: dict[type[RKLLamaError], tuple[str, str]] = {
    RKLLamaError: ("{text}", "{text}"),
    NoWebSocket: (
        "Cette adresse n'est pas servie comme WebSocket, seulement pour {allowed}.",
        "{text}",
    ),
    NotStored: ("Rien n'est conservé sous l'identifiant {id}.", "{text}"),
    ModelNotFound: ("Le modèle : {name} est introuvable.", "The model: {name} was not found."),
    AmbiguousName: (
        "Plusieurs modèles correspondent à « {name} » : {candidates}. Donnez le nom complet.",
        "{text}",
    ),
    NoModelLoaded: ("Aucun modèle n'est actuellement chargé.", "No model is currently loaded."),
    ModelsDirMissing: (
        "Le dossier {path} est introuvable.",
        "The directory {path} was not found.",
    ),
    QueueFull: (
        "Le serveur est occupé : {limit} requêtes attendent déjà. Réessayez plus tard.",
        "{text}",
    ),
    DiskFull: (
        "Espace disque insuffisant : {needed} octets nécessaires, {available} disponibles.",
        "{text}",
    ),
    Unauthorized: (
        "Une clé d'API valide est nécessaire (Authorization: Bearer CLÉ, ou x-api-key: CLÉ).",
        "{text}",
    ),
    BodyTooLarge: (
        "Le corps de la requête dépasse {limit} octets ; RKLLAMA_MAX_BODY règle cette limite.",
        "{text}",
    ),
    UnsupportedEncoding: (
        "L'encodage {encoding} du corps de la requête n'est pas pris en charge.",
        "{text}",
    ),
    TooManyBodies: (
        "Le serveur est occupé : les corps de ses requêtes dépassent {limit} octets. Réessayez plus tard.",
        "{text}",
    ),
    NoSuchRoute: ("Il n'y a rien à l'adresse {path}.", "{text}"),
    MethodNotAllowed: (
        "Méthode non autorisée ; méthodes acceptées : {allowed}.",
        "{text}",
    ),
    ServerStopping: ("Le serveur est en train de s'arrêter. Réessayez plus tard.", "{text}"),
    Cancelled: ("La requête a été annulée.", "{text}"),
}


def phrase(key: str, language: Language, **values: str) -> str:
    """Return one of the fixed messages."""
    return _pick(_PHRASES[key], language).format(**values)


def error_text(error: RKLLamaError, language: Language) -> str:
    """Return the sentence for an error, by its class."""
    known = next(cls for cls in type(error).__mro__ if cls in _ERRORS)
    return _pick(_ERRORS[known], language).format(text=error.text, **_words(vars(error)))


def _pick(texts: tuple[str, str], language: Language) -> str:
    return texts[1] if language == "en" else texts[0]


def _words(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return an error's attributes as a sentence shows them."""
    words = {name: _word(value) for name, value in attributes.items() if name != "text"}
    if "path" in words:
        words["path"] = _short_path(words["path"])
    return words


def _word(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _short_path(path: str) -> str:
    """Return the documented spelling of the default models directory; any other one as it is."""
    default = "~/RKLLAMA/models"
    return default if path == os.path.expanduser(default) else path


def language(accept_language: str | None) -> Language:
    """Return the language for an Accept-Language header: English where it is preferred to French.

    The higher q wins, the first one named between equals; without either it is French.
    """
    best: Language = "fr"
    best_weight = 0.0
    for item in (accept_language or "").split(","):
        tag, _, parameters = item.partition(";")
        code = tag.strip().lower().partition("-")[0]
        weight = _weight(parameters)
        if code in ("fr", "en") and weight > best_weight:
            best, best_weight = ("en" if code == "en" else "fr"), weight
    return best


def _weight(parameters: str) -> float:
    """Return the q-value of one item; 1 without one, 0 for an unreadable one."""
    name, _, value = parameters.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return min(max(float(value), 0.0), 1.0)
    except ValueError:
        return 0.0
