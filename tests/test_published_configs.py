"""Settings as published checkpoints have them: each is one of an architecture, or refused by cause.

``data/published_configs.json``: a model's name, what it is, and its config.json, shortened where it
lists layers.
"""

import json
from pathlib import Path

import pytest

from ggq import models
from ggq.errors import ModelError

CONFIGS = json.loads((Path(__file__).parent / "data" / "published_configs.json").read_text("utf-8"))
REFUSED = "refused: "


@pytest.mark.parametrize("name", CONFIGS)
def test_a_published_config_is_read_or_refused_by_its_cause(name):
    config, what = CONFIGS[name]["config"], CONFIGS[name]["is"]
    if what.startswith(REFUSED):
        with pytest.raises(ModelError) as error:
            models.for_hf(config).hparams(config)
        assert str(error.value).endswith(what.removeprefix(REFUSED))
    else:
        arch = models.for_hf(config)
        assert arch.name == what
        assert arch.hparams(config).n_layer in (
            config.get("num_hidden_layers"),
            config.get("n_layer"),
            (config.get("text_config") or {}).get("num_hidden_layers"),
        )
