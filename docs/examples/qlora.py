"""Trains a LoRA adapter beside the very weights that a GGUF file holds: QLoRA on ggq's grid.

  accelerate launch docs/examples/qlora.py MODEL TEXT OUT --type Q4_K_M --steps 100

MODEL: a Hugging Face folder; TEXT: plain text; OUT: the adapter's folder. Then

  ggq convert MODEL model.gguf --type Q4_K_M && ggq convert OUT adapter.gguf --base MODEL
  ggq chat model.gguf --lora adapter.gguf

One process or many: accelerate's config says which (docs/training.md). Needs peft and accelerate.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import ggq


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("out")
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    given = parser.parse_args()
    torch.manual_seed(0)

    accelerator = Accelerator()
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype="float32")
    ggq.prepass.qat.prepare(model, given.type)
    ggq.prepass.qat.freeze(model)  # plain weights from here on, with the file's values
    targets = "all-linear"
    lora = LoraConfig(r=given.rank, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)

    tokenizer = AutoTokenizer.from_pretrained(given.model)
    ids = torch.tensor(tokenizer(given.text.read_text(encoding="utf-8"))["input_ids"])
    windows = ids[: len(ids) // given.window * given.window].view(-1, given.window)
    loader = torch.utils.data.DataLoader(windows, given.batch, shuffle=True, drop_last=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    model, optimizer, loader = accelerator.prepare(model, torch.optim.AdamW(trained, 2e-4), loader)

    step = 0
    while step < given.steps:
        for batch in loader:
            loss = model(input_ids=batch, labels=batch).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            accelerator.print(f"step {step}: loss {accelerator.gather(loss.detach()).mean():.4f}")
            if step == given.steps:
                break
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(given.out)
    accelerator.end_training()


if __name__ == "__main__":
    main()
