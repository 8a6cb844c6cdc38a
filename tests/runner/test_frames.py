"""Frames in whatever pieces a pipe gives, and what is no frame."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkllama.backends.base import GenerateSpec, LoadedInfo, LoadSpec, RunResult
from rkllama.errors import InvalidRequest, LibraryNotFound, PromptTooLong, WorkerCrashed
from rkllama.runner import frames
from rkllama.types import SamplingParams, TokenLogprob
from tests.cost import assert_linear
from tests.fuzzing import examples
from tests.waiting import Task

Frame = tuple[int, int, bytes]
some_frames = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=300)), max_size=12
)


def packed(sent: list[Frame]) -> bytes:
    return b"".join(frames.pack_header(len(p), kind, run) + p for kind, run, p in sent)


@settings(max_examples=examples(2))
@given(some_frames, st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_frames_arrive_whole_however_they_are_cut(sent: list[Frame], cuts: list[int]) -> None:
    buffer, data, got = frames.FrameBuffer(), packed(sent), list[Frame]()
    turn = 0
    while data:
        size = cuts[turn % len(cuts)]
        got += buffer.feed(data[:size])
        data, turn = data[size:], turn + 1
    assert got == sent


@settings(max_examples=examples(3))
@given(st.lists(st.binary(max_size=60), max_size=20))
def test_garbage_is_refused_or_kept_waiting_and_nothing_else(pieces: list[bytes]) -> None:
    buffer, taken = frames.FrameBuffer(), 0
    try:
        for piece in pieces:
            taken += sum(frames.HEADER_SIZE + len(p) for _, _, p in buffer.feed(piece))
    except frames.BrokenFrame:
        return
    assert taken <= sum(map(len, pieces))


@settings(max_examples=examples(3))
@given(st.binary(max_size=200))
def test_payloads_that_are_no_json_are_broken_frames(payload: bytes) -> None:
    with contextlib.suppress(frames.BrokenFrame):
        frames.decode(payload)


def test_a_length_beyond_all_bounds_is_refused_before_it_is_waited_for() -> None:
    with pytest.raises(frames.BrokenFrame):
        frames.FrameBuffer().feed(frames.pack_header(frames.MAX_PAYLOAD + 1, 1, 1))


def test_a_large_frame_costs_time_in_proportion_to_its_size() -> None:
    def feed(size: int) -> None:
        chunk, buffer = bytes(64), frames.FrameBuffer()
        buffer.feed(frames.pack_header(size, frames.TEXT, 1))
        for _ in range(size // len(chunk) - 1):
            assert buffer.feed(chunk) == []
        ((_, _, payload),) = buffer.feed(chunk)
        assert len(payload) == size

    assert_linear(feed, 1 << 17)


def test_a_frame_is_written_whole_through_a_small_pipe() -> None:
    reader, writer = os.pipe()
    payload = os.urandom(1 << 20)

    def write() -> None:
        frames.write_frame(writer, 7, 9, payload)
        os.close(writer)

    task = Task(write)
    buffer, got = frames.FrameBuffer(), list[Frame]()
    while data := os.read(reader, 1 << 16):
        got += buffer.feed(data)
    os.close(reader)
    task.result()
    assert got == [(7, 9, payload)]


def test_values_come_back_as_they_were() -> None:
    sampling = SamplingParams(temperature=0.5, seed=7)
    load = LoadSpec(
        path="/m/caf\udce9.rkllm", context_length=512, sampling=sampling, eos_tokens=(1, 2)
    )
    assert frames.decode_load(frames.encode(load)) == load
    generate = GenerateSpec(
        prompt="é🙂\x00\n", sampling=sampling, schema={"type": "object"}, markers=("[THINK]",)
    )
    assert frames.decode_generate(frames.encode_generate(generate)) == generate
    seeing = replace(generate, images=(b"\x89\x00", b""))
    assert frames.decode_generate(frames.encode_generate(seeing), seeing.images) == seeing
    loaded = LoadedInfo(context_length=512, runtime="r", notices=("a", "b"))
    assert frames.decode_loaded(frames.encode(loaded)) == loaded
    result = RunResult(reason="length", prompt_tokens=3, prompt_seconds=0.25)
    assert frames.decode_result(frames.encode(result)) == result
    logprobs = (
        TokenLogprob(token="a", logprob=-0.5, top=(TokenLogprob(token="b", logprob=-1.0),)),
    )
    assert frames.decode_logprobs(frames.encode_logprobs("a", logprobs)) == ("a", logprobs)


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("no", param="x", hint="h"),
        PromptTooLong("long", prompt_tokens=5, context_length=4),
        WorkerCrashed("dead", exit_status=-11, log="last \udcff words"),
        LibraryNotFound((("/a", "absent"), ("/b", "bad")), hint="h"),
    ],
)
def test_errors_keep_their_class_and_attributes(error: InvalidRequest | WorkerCrashed) -> None:
    back = frames.decode_error(frames.encode_error(error))
    assert type(back) is type(error)
    assert back.to_dict() == frames.decode(frames.encode(error.to_dict()))
    assert (back.status, back.text) == (error.status, error.text)
