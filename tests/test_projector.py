"""Vision parts: converted to projector files, opened, and seen with on every back end.

The models are tiny and random; transformers says what they see, data/projectors.json what
llama.cpp's converter writes of them (made by tools/make_projectors.py).
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from floats import distance
from picturemaker import picture_bytes
from tinyeyes import EYES, make_eyes

import ggq
from ggq.cli import cli
from ggq.errors import GGQError, ModelError, UsageError
from ggq.gguf import open_gguf, spec
from ggq.models import vision
from ggq.runtime.backends.reference import ReferenceOps
from ggq.runtime.engine.eyes import Eyes
from ggq.runtime.engine.projectors import beside, open_gallery

EXPECTED = json.loads((Path(__file__).parent / "data" / "projectors.json").read_text())
TOLERANCE = 1e-3
LABELS = [tiny.label for tiny in EYES]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function that makes a tiny model: (HF folder, picture, rows); cached."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    done = {}

    def make(label):
        if label not in done:
            folder = tmp_path_factory.mktemp(label)
            pixels, rows, deeper = make_eyes(EYES[LABELS.index(label)], folder)
            done[label] = folder, pixels, np.concatenate([rows, *deeper], axis=1)
        return done[label]

    return make


def projector(folder, out, kind="F32"):
    (path,) = ggq.convert(folder, out / f"{kind}.gguf", type=kind, only_mmproj=True, force=True)
    return path


def described(path):
    """Return a file's keys and its tensors' types and shapes, as JSON holds them."""
    with open_gguf(path) as file:
        keys = {k: plain(v) for k, v in file.metadata.items() if k.startswith("clip.")}
        tensors = {
            t.name: [spec.type_name(t.type_id), *(int(n) for n in t.shape)]
            for t in file.tensors.values()
        }
    return {"keys": keys, "tensors": tensors}


def plain(value):
    if hasattr(value, "__len__") and not isinstance(value, str):
        return [plain(v) for v in value]
    value = value.item() if hasattr(value, "item") else value
    return round(value, 9) if isinstance(value, float) else value


@pytest.mark.slow
@pytest.mark.parametrize("label", LABELS)
def test_back_ends_see_what_transformers_sees(label, made, tmp_path):
    folder, pixels, want = made(label)
    with Eyes.load(projector(folder, tmp_path), 2) as eyes:
        assert eyes.sight.projector == EYES[LABELS.index(label)].projector
        ops = ReferenceOps(eyes.retina._weights)
        ops.picture = eyes.tower.patches(eyes.sight, pixels)
        view = eyes.sight.view(*pixels.shape[1:])
        assert distance(eyes.tower.forward(ops, eyes.sight, view), want) <= TOLERANCE
        seen = eyes.encode(pixels)
        assert distance(np.concatenate([seen.rows, *seen.deepstack], axis=1), want) <= TOLERANCE
        assert len(seen.rows) == eyes.sight.tokens(*pixels.shape[1:])
        assert np.prod(seen.grid) == len(seen.rows)
        again = eyes.encode(-pixels), eyes.encode(pixels)  # the plan is used again
        assert np.array_equal(again[1].rows, seen.rows)
        assert not np.array_equal(again[0].rows, seen.rows)
        from ggq.runtime.engine.torch.eyes import TorchRetina

        by_torch = TorchRetina(eyes.tower, eyes.sight, eyes.retina._weights, "cpu")
        assert distance(by_torch.run(pixels), want) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
@pytest.mark.parametrize("label", LABELS)
def test_files_hold_what_llama_cpp_writes(label, kind, made, tmp_path):
    folder, pixels, want = made(label)
    path = projector(folder, tmp_path, kind)
    assert described(path) == EXPECTED[label][kind]
    with Eyes.load(path, 2) as eyes:
        seen = eyes.encode(pixels)
        assert distance(np.concatenate([seen.rows, *seen.deepstack], axis=1), want) <= 0.05


@pytest.mark.slow
def test_the_command_writes_both_files_and_says_what_it_leaves_out(made, tmp_path):
    folder, _, _ = made("qwen3-vl")
    out = tmp_path / "model.gguf"
    told = CliRunner().invoke(cli, ["convert", str(folder), str(out), "--type", "F16"])
    assert told.exit_code == 0, told.output
    assert "--mmproj writes it" in told.stderr
    both = ["convert", str(folder), str(out), "--type", "F16", "--force", "--mmproj"]
    told = CliRunner().invoke(cli, both)
    assert told.exit_code == 0, told.output
    assert told.stdout.split() == [str(out), str(tmp_path / "mmproj-model.gguf")]
    assert "left out" not in "".join(line for line in told.stderr.splitlines() if "vision" in line)
    with open_gguf(tmp_path / "mmproj-model.gguf") as file:
        assert file.metadata["general.architecture"] == "clip"


@pytest.mark.slow
def test_what_is_no_vision_part_is_refused_before_any_work(made, tmp_path):
    folder, _, _ = made("qwen3-vl")
    with pytest.raises(UsageError, match="F16, BF16, F32, Q8_0, not Q4_K_M"):
        ggq.convert(folder, tmp_path / "x.gguf", type="Q4_K_M", only_mmproj=True)
    with pytest.raises(UsageError, match="that is the model's file"):
        ggq.convert(folder, tmp_path / "x.gguf", type="F16", mmproj=tmp_path / "x.gguf")
    config = json.loads((folder / "config.json").read_text())
    plain_folder = tmp_path / "plain"
    plain_folder.mkdir()
    for name, change in {
        "no": {"vision_config": None},
        "other": {"architectures": ["XVL"]},
    }.items():
        made_config = {k: v for k, v in {**config, **change}.items() if v is not None}
        (plain_folder / "config.json").write_text(json.dumps(made_config))
        (plain_folder / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()
        )
        with pytest.raises(ModelError, match="no vision part" if name == "no" else "'XVL' is not"):
            ggq.convert(plain_folder, tmp_path / "x.gguf", only_mmproj=True)
    assert not (tmp_path / "x.gguf").exists()


def stored(path):
    with open_gguf(path) as file:
        return {k: file.metadata[k] for k in file.metadata}


@pytest.fixture(scope="module")
def hostile(made, tmp_path_factory):
    """Return a function that writes a projector with other keys or tensors."""
    from ggq.gguf import GGUFWriter

    sources, place = {}, tmp_path_factory.mktemp("hostile")

    def write(keys=None, drop=(), shapes=None, extra=(), label="qwen3-vl"):
        if label not in sources:
            sources[label] = projector(made(label)[0], tmp_path_factory.mktemp(label))
        out = place / f"{len(list(place.iterdir()))}.gguf"
        with open_gguf(sources[label]) as file:
            writer = GGUFWriter(out, True, None)
            changed = keys or {}
            writer.copy_metadata(file.metadata, frozenset(changed))
            for key, (value, kind) in changed.items():
                if value is not None:
                    writer.add(key, value, kind)
            arrays = {}
            for name, tensor in file.tensors.items():
                if name not in drop:
                    values = file.data(name).view(np.float32).reshape(tensor.shape)
                    arrays[name] = values if not shapes or name not in shapes else shapes[name]
            arrays |= dict(extra)
            for name, values in arrays.items():
                writer.add_tensor(name, values.shape, spec.TYPE_IDS["F32"])
            writer.begin()
            for name, values in arrays.items():
                writer.write(name, np.ascontiguousarray(values, np.float32).view(np.uint8))
            writer.finish()
        return out

    return write


U32, I32, F32, STR, BOOL = spec.U32, spec.I32, spec.F32, spec.STR, spec.BOOL
NAN, MOST = float("nan"), (1 << 32) - 1
WRONG = {  # what is said of keys of qwen3-vl's file, or of another family's
    "image size is 1000000000": {"clip.vision.image_size": (10**9, U32)},
    "is '224', expected u32": {"clip.vision.image_size": ("224", STR)},
    "is -16, expected u32": {"clip.vision.patch_size": (-16, I32)},
    "projection dimension is 0": {"clip.vision.projection_dim": (0, U32)},
    "do not turn by row and column": {"clip.vision.attention.head_count": (40, U32)},
    r"layers \(0, .* of 4": {"clip.vision.is_deepstack_layers": ([True] * 9, BOOL)},
    "is nan, expected f32": {"clip.vision.image_mean": ([NAN, 0.5, 0.5], F32)},
    "of 3 colours": {"clip.vision.image_mean": ([0.5, 0.5], F32)},
    "deviation .*e-30": {"clip.vision.image_std": ([1e-30, 0.5, 0.5], F32)},
    "is inf, expected f32": {"clip.vision.image_std": ([float("inf")] * 3, F32)},
    "has 1000000 values": {"clip.vision.image_std": ([0.5] * 10**6, F32)},
    "projector_type is no text": {"clip.projector_type": ([1, 2], U32)},
    "both clip.use_gelu": {"clip.use_silu": (True, BOOL)},
    "in windows of 112": ("qwen2.5-vl", {"clip.vision.patch_size": (64, U32)}),
    "4294967295 tiles, 256 at most": ("internvl", {"clip.vision.preproc_max_tiles": (MOST, U32)}),
    "in tiles of 64: too many": ("idefics3", {"clip.vision.preproc_image_size": (MOST, U32)}),
    "64 positions of 9 x 9 patches": ("idefics3", {"clip.vision.image_size": (72, U32)}),
    "65 positions of 4 x 4": ("internvl", {"clip.vision.image_size": (32, U32)}),
    "block count": {"clip.vision.block_count": (1 << 30, U32)},
    "head count is 0": {"clip.vision.attention.head_count": (0, U32)},
    "heads do not divide": {"clip.vision.attention.head_count": (7, U32)},
    "patch size is 0": {"clip.vision.patch_size": (0, U32)},
    "scale factor is 0": {"clip.vision.spatial_merge_size": (0, U32)},
    "pixels": {"clip.vision.spatial_merge_size": (4000, U32)},
    "deviation": {"clip.vision.image_std": ([0.0, 1.0, 1.0], F32)},
    "epsilon": {"clip.vision.attention.layer_norm_epsilon": (0.0, F32)},
    "expected f32": {"clip.vision.attention.layer_norm_epsilon": (float("nan"), F32)},
    "no key clip.vision.patch_size": {"clip.vision.patch_size": (None, U32)},
    "not supported": {"clip.projector_type": ("resampler", STR)},
    "none of pictures": {"clip.has_vision_encoder": (False, BOOL)},
    "a projector file": {"general.architecture": ("llama", STR)},
    "has shape": {"clip.vision.projection_dim": (32, U32)},
}


@pytest.mark.slow
@pytest.mark.parametrize("says", WRONG)
def test_hostile_keys_end_in_one_line(says, hostile):
    label, keys = WRONG[says] if isinstance(WRONG[says], tuple) else ("qwen3-vl", WRONG[says])
    with pytest.raises(GGQError, match=says) as caught:
        Eyes.load(hostile(keys, label=label))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_hostile_tensors_end_in_one_line(hostile):
    with pytest.raises(ModelError, match=r"no tensor v\.blk\.1\.ln1\.weight"):
        Eyes.load(hostile(drop=["v.blk.1.ln1.weight"]))
    with pytest.raises(ModelError, match=r"mm\.0\.weight has shape"):
        Eyes.load(hostile(shapes={"mm.0.weight": np.zeros((320, 64))}))
    with pytest.raises(ModelError, match="positions are no square"):
        Eyes.load(hostile(shapes={"v.position_embd.weight": np.zeros((50, 80))}))
    damaged = hostile(shapes={"v.post_ln.bias": np.full(80, np.nan)})
    with Eyes.load(damaged, 1) as eyes, pytest.raises(ModelError, match="no numbers: it is dam"):
        eyes.encode(np.zeros((3, 64, 64), np.float32))
    with pytest.raises(ModelError, match=r"v\.blk\.0\.attn_sinks .* would not be used"):
        Eyes.load(hostile(extra={"v.blk.0.attn_sinks": np.zeros(4)}.items()))


@pytest.mark.slow
def test_views_that_do_not_fit_are_refused(hostile):
    with Eyes.load(hostile(), 1) as eyes:
        for shape, says in {
            (3, 60, 64): "multiples of 16",
            (3, 0, 64): "multiples of 16",
            (1, 64, 64): "shape",
            (64, 64): "shape",
            (3, 16, 1 << 20): "above",
        }.items():
            with pytest.raises(UsageError, match=says):
                eyes.encode(np.zeros(shape, np.float32))
        with pytest.raises(UsageError, match="no numbers"):
            eyes.encode(np.full((3, 64, 64), np.nan, np.float32))
        shares = []
        eyes.encode(np.zeros((3, 64, 64), np.float32), shares.append)
        assert shares[-1] == 1.0
        assert shares == sorted(shares)


@pytest.mark.slow
def test_pixels_that_are_no_whole_patch_are_not_seen(tmp_path):
    """As a convolution leaves them out: SmolVLM's square of 384 pixels in patches of 14."""
    pytest.importorskip("transformers")
    tiny = EYES[LABELS.index("smolvlm")]
    tiny = replace(tiny, vision={**tiny.vision, "image_size": 68}, size=(68, 68))
    pixels, want, _ = make_eyes(tiny, tmp_path)
    with Eyes.load(projector(tmp_path, tmp_path), 2) as eyes:
        assert distance(eyes.encode(pixels).rows, want) <= TOLERANCE
        with pytest.raises(UsageError, match="multiples of 16"):
            eyes.encode(pixels[:, :64, :60])


SEEN = """
import sys, ggq
part = {"type": "image", "image": sys.argv[2]}
asked = [{"role": "user", "content": [part, {"type": "text", "text": "What is it?"}]}]
with ggq.load(sys.argv[1], mmproj=sys.argv[3], threads=1) as model:
    assert sum(i < 0 for i in model.chat_ids(asked))  # the picture's
    "".join(model.chat(asked, max_tokens=2))
print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "transformers"}))
"""


@pytest.mark.slow
def test_a_chat_about_a_picture_imports_no_torch(made, tmp_path):
    files = [tmp_path / name for name in ("model.gguf", "x.png", "eyes.gguf")]
    ggq.convert(made("qwen2-vl")[0], files[0], "F32", mmproj=files[2])
    files[1].write_bytes(picture_bytes(60, 90))
    command = [sys.executable, "-c", SEEN, *map(str, files)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.stdout.strip() == "[]", told.stderr


@pytest.mark.slow
def test_ears_and_films_are_left_out_by_name(made, tmp_path):
    folder = shutil.copytree(made("gemma3")[0], tmp_path / "hearing")
    config = json.loads((folder / "config.json").read_text())
    ears, films = "the part that hears is left out", "films are left out (video_config, video_pre"
    for more, told in (({}, False), ({"audio_config": {}, "video_config": {}}, True)):
        (folder / "config.json").write_text(json.dumps({**config, **more}))
        if told:
            (folder / "video_preprocessor_config.json").write_text("{}")
        for flag in ("--mmproj", "--only-mmproj"):
            args = ["convert", str(folder), str(tmp_path / "m.gguf"), "--type", "F16", "--force"]
            found = CliRunner().invoke(cli, [*args, flag])
            assert found.exit_code == 0, found.output
            assert found.stderr.count(films) == told
            assert found.stderr.count(ears) == told


@pytest.mark.slow
def test_internvl_in_its_own_layout_is_refused_with_the_way_out(made, tmp_path):
    folder = shutil.copytree(made("internvl")[0], tmp_path / "own")
    config = json.loads((folder / "config.json").read_text())
    config = {**config, "architectures": ["InternVLChatModel"], "model_type": "internvl_chat"}
    (folder / "config.json").write_text(json.dumps(config))
    told = CliRunner().invoke(cli, ["convert", str(folder), str(tmp_path / "m.gguf")])
    said = str(told.exception)
    assert isinstance(told.exception, ModelError) and "\n" not in said
    assert "ends in -hf or -HF" in said and "--only-mmproj" in said
    args = ["convert", str(folder), str(tmp_path / "eyes.gguf"), "--only-mmproj"]
    assert CliRunner().invoke(cli, args).exit_code == 0


@pytest.mark.slow
def test_info_says_what_a_projector_is(made, tmp_path):
    folder, _, _ = made("gemma3")
    path = projector(folder, tmp_path)
    told = CliRunner().invoke(cli, ["info", str(path)])
    assert "projector gemma3: 3 layers of 64 columns, 2 heads; a token for 16 x 16" in told.output
    assert "of 64 columns (embedding_length)" in told.output and "problem" not in told.output
    found = json.loads(CliRunner().invoke(cli, ["info", "--json", str(path)]).output)
    assert found["projector"]["n_text"] == 64 and found["problem"] is None


@pytest.mark.slow
def test_a_projector_of_another_family_is_refused(made, tmp_path):
    folder, _, _ = made("gemma3")
    projector(folder, tmp_path).rename(tmp_path / "mmproj-x.gguf")
    assert beside(tmp_path / "model.gguf", 64, "gemma3") == tmp_path / "mmproj-x.gguf"
    assert beside(tmp_path / "model.gguf", 64, "qwen3vl") is None
    assert beside(tmp_path / "model.gguf", 32, "gemma3") is None
    hp = SimpleNamespace(arch="gemma3", n_embd=64, deepstack=0, embedding_scale=8.0)
    open_gallery(tmp_path / "mmproj-x.gguf", hp, 1).close()
    hp.arch = "qwen3vl"
    with pytest.raises(ModelError, match="gemma3 projector is one of gemma3, not of qwen3vl"):
        open_gallery(tmp_path / "mmproj-x.gguf", hp, 1)


def test_every_tower_is_found_by_its_name_and_class():
    for tower in vision.all_towers():
        assert vision.get(tower.projector) is tower
        assert tower.hf_classes
    assert {tiny.projector for tiny in EYES} == {t.projector for t in vision.all_towers()}
    with pytest.raises(ModelError, match="'gema3' is not supported"):
        vision.get("gema3")
