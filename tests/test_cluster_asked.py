"""What a node of a cluster checks before it works for a driver; no Ray is needed to see it."""

from dataclasses import replace

import pytest
from hfmaker import make_hf

from ggq.cluster import convert as nodes
from ggq.cluster.convert import Final, OnCluster
from ggq.converters import job as local
from ggq.converters.convert import make_request
from ggq.converters.parts import Parts
from ggq.errors import UsageError

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}


@pytest.fixture
def asked(tmp_path):
    """Return what a driver asks, and what its passes made."""
    source = make_hf(tmp_path / "hf", **SMALL)
    request = make_request(source, tmp_path / "out.gguf", "Q8_0", split_max_size="20k")
    with local.planned(request) as (job, passes):
        driver = OnCluster(request, 1, None, print)
        driver.passes(job, passes)
        folder = Parts(job).folder
        yield driver._asked, Final(job.items, None, {}, str(folder))


def refused(asked, final, message):
    nodes._open.clear()
    with pytest.raises(UsageError, match=message):
        nodes._encode(0, asked, final)


def test_it_encodes_what_it_can_see(asked):
    question, final = asked
    refused(question, final, "OUT must lie on a disk that all nodes share")
    Parts(nodes._opened(question)).folder.mkdir()
    assert nodes._encode(1, question, final) is True
    assert nodes._encode(1, question, final) is False  # it is there


def test_it_refuses_other_versions_models_and_plans(asked, tmp_path):
    question, final = asked
    refused(replace(question, version="0.0.1"), final, "the driver 0.0.1")
    refused(question, replace(final, folder="/elsewhere"), "the driver /elsewhere")
    make_hf(tmp_path / "hf", seed=2, **SMALL)
    refused(question, final, "is another model than the driver's")
    gone = replace(question, request=replace(question.request, source=str(tmp_path / "none")))
    refused(gone, final, "none")
