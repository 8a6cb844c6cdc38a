"""/metrics and /health: what a monitor reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from rkllama.engine.metrics import Counter, Histogram
from tests.running import Server
from tests.virtual_npu import directive, write_model


def figures(server: Server) -> dict[str, float]:
    """The samples; each belongs to a family of a kind, and those that only grow are counters."""
    answer = server.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.body.decode().splitlines()
    kinds = dict(line.split()[2:] for line in lines if line.startswith("# TYPE "))
    assert {name.endswith("_total") for name, kind in kinds.items() if kind == "counter"} == {True}
    assert not [name for name, kind in kinds.items() if kind == "gauge" and "total" in name]
    samples = [line for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in samples)}


@pytest.mark.integration
def test_what_happened_is_counted(server: Server, models: Path) -> None:
    write_model(models / "m.rkllm", tokens=12)
    body = {"model": "m", "messages": "hi"}
    assert server.post("/generate", body).status == 200
    assert server.post("/generate", {"messages": 7}).status == 400
    assert server.post("/generate", {**body, "messages": directive(segv_at=0)}).status == 500
    assert server.post("/generate", body).status == 200
    found = figures(server)
    assert found['rkllama_requests_total{path="/generate",status="200"}'] == 2
    assert found['rkllama_requests_total{path="/generate",status="400"}'] == 1
    assert found['rkllama_completion_tokens_total{model="m"}'] == 24
    assert found['rkllama_prompt_tokens_total{model="m"}'] > 0
    assert found['rkllama_generation_seconds_count{model="m"}'] == 2
    assert found["rkllama_worker_restarts_total"] == 1
    assert found["rkllama_queue_length"] == 0
    [loaded] = server.get("/api/ps").json["models"]
    assert loaded["tokens_per_second"] > 0
    assert found['rkllama_model_state{model="m",state="ready"}'] == 1
    assert found['rkllama_model_memory_bytes{model="m"}'] > 0


@pytest.mark.integration
def test_health_tells_what_is_loaded(server: Server, models: Path) -> None:
    assert server.get("/health").json["models"] == []
    write_model(models / "m.rkllm")
    assert server.post("/load_model", {"model_name": "m"}).status == 200
    health = server.get("/health").json
    assert health["status"] == "ok"
    assert health["models"] == [{"name": "m", "state": "ready"}]


def test_labels_are_escaped() -> None:
    counter = Counter("c", "A counter.", ("name",))
    counter.add(2, 'a "b"\\\n')
    assert list(counter.samples()) == ['c{name="a \\"b\\"\\\\\\n"} 2']


def test_buckets_are_cumulative() -> None:
    histogram = Histogram("h", "A histogram.")
    for seconds in (0.01, 0.2, 1000.0):
        histogram.observe(seconds, "m")
    lines = dict(line.rpartition(" ")[::2] for line in histogram.samples())
    assert lines['h_bucket{model="m",le="0.05"}'] == "1"
    assert lines['h_bucket{model="m",le="0.25"}'] == "2"
    assert lines['h_bucket{model="m",le="300.0"}'] == "2"
    assert lines['h_bucket{model="m",le="+Inf"}'] == lines['h_count{model="m"}'] == "3"
