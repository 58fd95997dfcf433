"""The page of refused architectures says what is refused, each class once and with a reason."""

import pytest
from tools.architecture_table import table
from tools.refused_classes import PAGE, page, refused

from ggq import models
from ggq.errors import ModelError
from ggq.models.refused import REASONS


def test_the_page_is_in_step():
    assert PAGE.read_text(encoding="utf-8") == page(table()), "run make table"


def test_every_refused_class_has_one_reason_and_is_one_of_the_list():
    classes, by_reason = refused()
    named = [name for names in REASONS.values() for name in names]
    assert len(named) == len(set(named)) and set(named) <= set(classes)
    known = {name for arch in models.all_architectures() for name in arch.hf_classes}
    assert not known & {name for names in by_reason.values() for name in names}
    assert len(classes) > 200


def test_a_refused_class_says_its_reason():
    _, by_reason = refused()
    for why, names in by_reason.items():
        for name in names:
            with pytest.raises(ModelError, match="is not supported") as error:
                models.for_hf({"architectures": [name]})
            assert str(error.value).endswith(f"; why: {why}")
