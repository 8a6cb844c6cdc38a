"""Pictures that the user of the command line names, and small ones on terminals that show some."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import re
import time
from pathlib import Path

import pytest
from PIL import Image

from rkllama.commands import prompt
from rkllama.console.inputs import completed_picture
from rkllama.console.pictures import graphics
from rkllama.console.pictures.files import (
    LIMIT,
    argument_picture,
    check_sees,
    path_alone,
    picture_kind,
    read_picture,
    shell_path,
    take_pictures,
)
from rkllama.console.pictures.graphics import find_protocol, show_pictures, sixels
from rkllama.errors import RKLLamaError, Unsupported
from rkllama.types import EncoderInfo, ModelDetails, ModelInfo
from tests.backends.vision.pictures import BLUE, RED, encoded, halves
from tests.cases import cases

PNG = encoded(halves((8, 8)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with pictures of names that have to be quoted."""
    for name in ("cat.png", "my cat.PNG", "it's.jpg", "a(1).webp", "b.png.bak"):
        (tmp_path / name).write_bytes(PNG)
    return tmp_path


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


# --- Paths -------------------------------------------------------------------------------------


def taken(text: str) -> tuple[str, list[str]]:
    rest, pictures = take_pictures(text)
    return rest, [picture.where for picture in pictures]


def test_paths_are_taken_as_terminals_write_them(folder: Path) -> None:
    for typed, name in (
        (f"{folder}/cat.png", "cat.png"),
        (f"'{folder}/my cat.PNG' ", "my cat.PNG"),
        (f'"{folder}/my cat.PNG"', "my cat.PNG"),
        (f"{folder}/my\\ cat.PNG", "my cat.PNG"),
        (f"file://{folder}/my%20cat.PNG", "my cat.PNG"),
        (f"'{folder}/it'\\''s.jpg'", "it's.jpg"),
        (f"{folder}/it\\'s.jpg", "it's.jpg"),
        (f"{folder}/a\\(1\\).webp", "a(1).webp"),
    ):
        assert taken(f"What is it? {typed}") == ("What is it?", [name])
        assert taken(f"{typed} What is it?") == ("What is it?", [name])
        assert path_alone(f" {typed}") is not None
        assert read_picture(path_alone(typed) or "").where == name
        assert read_picture(shell_path(typed.strip())).where == name


def test_a_picture_in_the_middle_has_a_number(folder: Path) -> None:
    first, second = f"{folder}/cat.png", f"'{folder}/my cat.PNG'"
    assert taken(f"Is {first} like {second}?") == (
        "Is picture 1 like picture 2?",
        ["cat.png", "my cat.PNG"],
    )
    assert take_pictures(f"And ({first})?", 2)[0] == "And (picture 3)?"


def test_what_is_only_talked_about_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for text in (
        "what is cat.png?",
        f"and {folder}/no.png",
        f"{folder}/b.png.bak",
        f"see https://x{folder}/cat.png",
        f"{folder}",
        "a.png",
        "",
    ):
        assert taken(text) == (text, [])
    assert taken("What is ./cat.png") == ("What is", ["cat.png"])
    assert path_alone("what is /x.png") is None
    assert path_alone("https://x/cat.png") is None
    assert path_alone("/no/such.png") == "/no/such.png"


def test_long_texts_without_spaces_cost_little() -> None:
    text = "a" * 400_000 + ".png" + "/'" * 50_000
    begun = time.thread_time()
    assert taken(text) == (text, [])
    assert time.thread_time() - begun < 5


def test_arguments_are_pictures_as_a_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for word in ("cat.png", "./my cat.PNG", str(folder / "it's.jpg"), f"file://{folder}/cat.png"):
        assert argument_picture(word) == word
    assert argument_picture("./gone.png") == "./gone.png"  # told, rather than asked about
    for word in ("gone.png", "what is in /x/gone.png", "https://x/cat.png", "cat", "-"):
        assert argument_picture(word) is None


# --- Files -------------------------------------------------------------------------------------


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    def reason(content: bytes | None) -> str:
        path = tmp_path / "x.png"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(RKLLamaError) as failed:
            read_picture(str(path))
        return failed.value.message.replace(str(path), "FILE")

    assert reason(None) == "the picture FILE cannot be read: No such file or directory"
    assert reason(b"") == "FILE is empty"
    assert reason(b"text") == "FILE is not a picture"
    assert "of the kind TIFF, which cannot be read" in reason(b"II*\0....")
    assert "of the kind HEIC" in reason(b"\0\0\0\x18ftypheic....")
    assert reason(PNG + bytes(LIMIT)) == "FILE is too large: a picture may have 20 MB"
    with pytest.raises(RKLLamaError, match="is a URL, which is not fetched"):
        read_picture("https://example.org/cat.png")
    with pytest.raises(RKLLamaError, match="it is not a file"):
        read_picture(str(tmp_path))


def test_each_kind_is_told_by_its_bytes(tmp_path: Path) -> None:
    for form, kind in (("PNG",) * 2, ("JPEG",) * 2, ("WEBP", "WebP"), ("GIF",) * 2, ("BMP",) * 2):
        data = encoded(halves((8, 8)), form)
        assert picture_kind(data) == kind
        (tmp_path / "misnamed.png").write_bytes(data)
        picture = read_picture(str(tmp_path / "misnamed.png"))
        assert base64.b64decode(picture.data) == data
        assert (picture.where, picture.instead) == ("misnamed.png", "[picture misnamed.png]")


def test_a_model_without_eyes_is_told_before_it_is_loaded(folder: Path) -> None:
    pictures = [read_picture(str(folder / "cat.png"))]
    info = ModelInfo(name="m", file="m", path="/m", format="rkllm", size=1, modified=0)
    blind = ModelDetails(info=info, capabilities=("completion",))
    check_sees(blind, [])
    check_sees(ModelDetails(info=info, capabilities=("completion", "vision")), pictures)
    with pytest.raises(Unsupported, match=r"cat\.png is a picture, and m sees none"):
        check_sees(blind, pictures)
    broken = EncoderInfo(file="e.rknn", path="/e.rknn", size=1, problem="librknnrt.so is not there")
    with pytest.raises(Unsupported, match=r"m cannot see pictures here: librknnrt\.so is not"):
        check_sees(ModelDetails(info=info, encoder=broken), pictures)


# --- Small ones --------------------------------------------------------------------------------


@cases(
    ("env", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),  # ssh passes it on
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "230805"}, "sixel"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "210800"}, None),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "screen-256color", "LC_TERMINAL": "iTerm2"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
        ({"TERM": "dumb", "TERM_PROGRAM": "iTerm.app"}, None),
        ({}, None),
    ],
)
def test_a_terminal_is_known_by_its_environment(env: dict[str, str], protocol: str | None) -> None:
    assert find_protocol(env) == protocol


class Screen(io.StringIO):
    """What stands for stderr of a terminal."""

    def isatty(self) -> bool:
        return True


def drawn(directory: Path, protocol: graphics.Protocol | None, data: bytes) -> str:
    """What is written for a picture to a terminal that is nothing special."""
    path = directory / "x.png"
    path.write_bytes(data)
    with contextlib.redirect_stderr(Screen()) as screen:
        show_pictures([read_picture(str(path))], protocol)
    return screen.getvalue()


def test_kitty_gets_a_png_in_pieces(tmp_path: Path) -> None:
    noise = Image.effect_noise((900, 600), 90)
    text = drawn(tmp_path, "kitty", encoded(noise))
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert pieces[0][0] == "a=T,f=100,q=2,m=1"
    assert [head for head, _ in pieces[1:]] == ["m=1"] * (len(pieces) - 2) + ["m=0"]
    assert max(len(data) for _, data in pieces) == 4096
    image = Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in pieces))))
    assert image.size == (300, 200)
    assert text.endswith("\x1b\\\n")


def test_iterm2_gets_a_png_of_its_size(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    text = drawn(tmp_path, "iterm2", encoded(halves((40, 20)), "JPEG", exif=turned))
    match = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+):([\w+/=]+)\x07\n", text)
    assert match is not None
    data = base64.b64decode(match[2])
    assert len(data) == int(match[1])
    assert Image.open(io.BytesIO(data)).size == (20, 40)


def test_sixels_can_be_read_back() -> None:
    image = halves((10, 13))
    assert _from_sixels(sixels(image)).tobytes() == image.tobytes()


def _from_sixels(text: str) -> Image.Image:
    """What a terminal makes of sixels whose colours are those of `halves`, as near as percents are."""
    head = re.match(r'\x1bPq"1;1;(\d+);(\d+)', text)
    assert head is not None
    assert text.endswith("\x1b\\")
    width, height = int(head[1]), int(head[2])
    image = Image.new("RGB", (width, height))
    palette: dict[int, tuple[int, int, int]] = {}
    colour = column = top = 0
    tokens = r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)([?-~])|([?-~])|(\$)|(-)"
    for token in re.finditer(tokens, text[head.end() : -2]):
        if token[1]:
            percents = (int(token[2]), int(token[3]), int(token[4]))
            palette[int(token[1])] = min((RED, BLUE), key=lambda c: _distance(c, percents))
        elif token[5]:
            colour = int(token[5])
        elif token[9]:
            column = 0
        elif token[10]:
            column, top = 0, top + 6
        else:
            bits, count = ord(token[7] or token[8]) - 63, int(token[6] or 1)
            for x, row in itertools.product(range(column, column + count), range(6)):
                if bits & 1 << row:
                    image.putpixel((x, top + row), palette[colour])
            column += count
    return image


def _distance(colour: tuple[int, ...], percents: tuple[int, ...]) -> float:
    return sum(abs(a - b * 2.55) for a, b in zip(colour, percents, strict=True))


def test_nothing_is_drawn_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphics, "find_protocol", lambda: None)
    assert drawn(tmp_path, None, PNG) == ""
    assert drawn(tmp_path, "kitty", PNG[:40]) == ""  # the model's process says why
    monkeypatch.setattr(Screen, "isatty", lambda _: False)
    assert drawn(tmp_path, "kitty", PNG) == ""
    with contextlib.redirect_stderr(Screen()), pytest.raises(RKLLamaError, match="only a terminal"):
        graphics.check_shows("kitty")


def test_tab_completes_pictures_and_folders(folder: Path) -> None:
    (folder / "cats").mkdir()
    (folder / "cat.txt").write_text("x")
    assert completed_picture(f"{folder}/cat") == [f"{folder}/cat.png", f"{folder}/cats/"]
    assert prompt.picture_paths(f"{folder}/my") == [f"{folder}/my cat.PNG"]
    assert prompt.prompt_paths("cat") == []
    assert prompt.prompt_paths(f"{folder}/cat.p") == [f"{folder}/cat.png"]
