"""Train the quickstart's teacher on the teacher split, from scratch: `make teacher`, or `python examples/quickstart/train_teacher.py`.

It learns to write and to label first, in the few prompts of `lessons.py`, then all the project's prompts (`method_lessons.py`), in chats
that begin alike and share their beginning (`packing.py`).
`--start FOLDER` goes on from saved weights with the latter alone. A Qwen3-shaped causal language model with its own BPE tokenizer and chat
template, written as bfloat16 safetensors to `teacher/`. CPU is enough; the time it takes stands in the model card, which
`measure_teacher.py` writes.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
from lessons import HERE, Lesson, LessonMaker, MarkedRow, read_rows
from method_lessons import MethodLessons
from packing import IGNORED, Batch, Encoded, batches
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from engine.machine.processor import Processor

END_OF_TEXT, TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = 4096
CONTEXT = 4096
TOKENS_PER_STEP = 4096
PACK_TOKENS = 2560
"""A longer one costs more in attention than it saves."""


def make_tokenizer(lessons: Sequence[Lesson]) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the lessons. Digits stand alone, so that any order number can be spelled."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"""\p{N}| ?\p{L}+['’]?\p{L}*| ?[^\s\p{L}\p{N}]+|\s+"""), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT, TURN, END_OF_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((content for lesson in lessons for chat in lesson.chats for _, content in chat), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(tokenizer: PreTrainedTokenizerFast, layers: int, hidden: int) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 128),
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        eos_token_id=cast(int, tokenizer.eos_token_id),
        pad_token_id=cast(int, tokenizer.pad_token_id),
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


def encode(tokenizer: PreTrainedTokenizerFast, turns: Sequence[tuple[str, str]]) -> Encoded:
    """The whole chat; what the assistant says is learned, and that it ends there."""
    ids: list[int] = []
    is_learned: list[bool] = []
    for role, content in turns:
        head = tokenizer.encode(f"{TURN}{role}\n", add_special_tokens=False)
        body = tokenizer.encode(f"{content}{END_OF_TURN}", add_special_tokens=False)
        tail = tokenizer.encode("\n", add_special_tokens=False)
        ids += head + body + tail
        is_learned += [False] * len(head) + [role == "assistant"] * len(body) + [False] * len(tail)
    return Encoded(ids, is_learned)


def loss_of(model: Qwen3ForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean over what is learned. Only that needs logits: most tokens of a lesson are prompt."""
    states = model.model(input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.sees).last_hidden_state
    learned = batch.targets != IGNORED
    logits = torch.nn.functional.linear(states[learned], model.lm_head.weight)
    return torch.nn.functional.cross_entropy(logits.float(), batch.targets[learned])


def train(model: Qwen3ForCausalLM, material: Iterable[Batch], steps: int, learning_rate: float, dropout: float) -> float:
    """AdamW with warm-up and cosine decay over `steps` batches; returns the last mean loss."""
    in_bfloat16 = Processor.here().is_fast_in_bfloat16
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=learning_rate, betas=(0.9, 0.95)
    )
    warmup = max(1, steps // 25)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))
    )

    # The language model has too few texts not to learn them by heart: dropout on what each layer adds keeps it from reciting.
    def drop(module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(output, dropout, module.training)

    hooks = [
        module.register_forward_hook(drop) for name, module in model.named_modules() if name.endswith(("o_proj", "down_proj")) and dropout
    ]
    model.train()
    started = time.perf_counter()
    mean = math.nan
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("teacher", total=steps, loss="")
        for step, batch in enumerate(itertools.islice(material, steps), start=1):
            with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
                loss = loss_of(model, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            mean = loss.item() if math.isnan(mean) else 0.98 * mean + 0.02 * loss.item()
            progress.update(bar, advance=1, loss=f"loss {mean:.3f}")
            if step % 100 == 0 and not progress.console.is_terminal:
                print(f"step {step} loss {mean:.3f} after {time.perf_counter() - started:.0f} s", flush=True)
    for hook in hooks:
        hook.remove()
    return mean


@dataclass(frozen=True, slots=True)
class Stage:
    """One rise and fall of the learning rate."""

    steps: int
    dropout: float
    learning_rate: float
    has_all_prompts: bool = True

    def lessons(self, rows: Sequence[MarkedRow], seed: int) -> Iterator[Lesson]:
        """Without end."""
        return (MethodLessons if self.has_all_prompts else LessonMaker)(rows, seed).lessons()


# Starting anew helped more than one long fall. Without dropout at the end the model learns some messages by heart, and writes better ones.
FIRST_STAGES = (Stage(1800, 0.1, 2e-3, has_all_prompts=False), Stage(1350, 0.1, 2e-3, has_all_prompts=False))
LATER_STAGES = (Stage(600, 0.05, 1.5e-3), Stage(400, 0.0, 1e-3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "teacher")
    parser.add_argument("--start", type=Path, help="saved weights to go on from, with the later stages only")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    rows = read_rows(HERE / "data" / "teacher.jsonl")
    before = Facts()
    if options.start is None:
        tokenizer = make_tokenizer(list(itertools.islice(LessonMaker(rows, options.seed + 1).lessons(), 1500)))
        model = make_model(tokenizer, options.layers, options.hidden)
        stages = (*FIRST_STAGES, *LATER_STAGES)
    else:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(options.start)
        model = Qwen3ForCausalLM.from_pretrained(options.start, dtype=torch.float32)
        stages = LATER_STAGES
        earlier = json.loads((options.start / "training.json").read_text())
        before = Facts(earlier["minutes"], earlier["steps"])
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    steps = sum(stage.steps for stage in stages)
    print(f"{parameters:.1f} M parameters, {len(rows)} rows, {steps} steps of {TOKENS_PER_STEP} tokens")
    started = time.perf_counter()
    done = 0
    for number, stage in enumerate(stages, start=len(FIRST_STAGES) + len(LATER_STAGES) - len(stages)):
        material = batches(stage.lessons(rows, options.seed + number), partial(encode, tokenizer), TOKENS_PER_STEP, PACK_TOKENS)
        loss = train(model, material, stage.steps, stage.learning_rate, stage.dropout)
        done += stage.steps
        # After each stage, so that there is something to use if the next is stopped.
        save(model, tokenizer, options.out, {
            "parameters": parameters,
            "rows": len(rows),
            "minutes": before.minutes + (time.perf_counter() - started) / 60,
            "cores": torch.get_num_threads(),
            "steps": before.steps + done,
            "loss": loss,
            "layers": model.config.num_hidden_layers,
            "hidden": model.config.hidden_size,
            "vocabulary": VOCABULARY,
            "context": CONTEXT,
            "note": "",
        })  # fmt: skip
        print(f"{done} steps, loss {loss:.3f}, {(time.perf_counter() - started) / 60:.1f} min; written to {options.out}")


@dataclass(frozen=True, slots=True)
class Facts:
    """What earlier stages took."""

    minutes: float = 0.0
    steps: int = 0


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path, facts: Mapping[str, object]) -> None:
    """As bfloat16; what is trained on stays as it is."""
    shipped = copy.deepcopy(model).eval().to(dtype=torch.bfloat16)  # pyright: ignore[reportCallIssue] -- transformers wraps `to`
    shipped.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "training.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
