"""A small CLIP that learns which sentences are true of a frame.

The losses are sigmoid losses on the cosine between a frame and plain captions, and between a frame and the prompts of
`TextPrompt.xlsx`. Two more keep what neither needs: patches know the instrument that covers them, and questions their
template and words. The heads of those are thrown away.

F frames, S sentences.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import utils.torchvision_cpu  # noqa: F401 - before clip, which imports torchvision

# isort: split
import clip

from dataset.bandstand import lessons as taught
from dataset.bandstand.questions import TEMPLATES
from dataset.bandstand.scene import INSTRUMENTS
from dataset.text_prompt import PromptTable
from feat_script.clip_vision import MEAN, STD
from scripts.bandstand.teaching import SECONDS, rms, training
from utils.scoring.grounding import selection_scores

CONTEXT, WORDS = 77, 49408
CLASSES = 2 * len(INSTRUMENTS)  # of a patch: resting or playing, by instrument


class Teacher(nn.Module):
    """A small CLIP and the heads that only training needs."""

    def __init__(self, patch: int, words: int):
        super().__init__()
        self.clip = clip.model.CLIP(
            embed_dim=128,
            image_resolution=taught.SIDE,
            vision_layers=4,
            vision_width=128,
            vision_patch_size=patch,
            context_length=CONTEXT,
            vocab_size=WORDS,
            transformer_width=64,
            transformer_heads=1,
            transformer_layers=3,
        )
        self.bias = nn.Parameter(torch.tensor(-4.0))  # of the sigmoid: most sentences are false of most frames
        self.patch_class = nn.Linear(128, CLASSES + 1)
        self.question_parts = nn.Linear(128, words)

    def images(self, pictures: np.ndarray) -> tuple[Tensor, Tensor]:
        """Frames (F, SIDE, SIDE, 3) uint8 -> features (F, 128), patch tokens (F, patches, 128)."""
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        visual = self.clip.visual
        x = visual.conv1((x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None])
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1) + visual.positional_embedding
        x = visual.transformer(visual.ln_pre(x).transpose(0, 1)).transpose(0, 1)
        x = visual.ln_post(x)
        return x[:, 0] @ visual.proj, x[:, 1:]

    def texts(self, sentences: list[str]) -> Tensor:
        """Sentences -> features (S, 128). Padding is left off: nothing attends to what comes after the end."""
        ids = clip.tokenize(sentences)
        longest = int(ids.argmax(dim=1).max()) + 1
        mask = self.clip.build_attention_mask()[:longest, :longest]
        for block in self.clip.transformer.resblocks:
            block.attn_mask = mask
        x = self.clip.token_embedding(ids[:, :longest]) + self.clip.positional_embedding[:longest]
        x = self.clip.ln_final(self.clip.transformer(x.transpose(0, 1)).transpose(0, 1))
        return x[torch.arange(len(ids)), ids.argmax(dim=1)] @ self.clip.text_projection

    def logits(self, frames: Tensor, texts: Tensor) -> Tensor:
        """Features (F, 128) and (S, 128) -> how likely each sentence is true of each frame (F, S)."""
        return self.clip.logit_scale.exp() * cosines(frames, texts) + self.bias


def cosines(frames: Tensor, texts: Tensor) -> Tensor:
    """Features (F, 128) and (S, 128) -> their cosines (F, S)."""
    return F.normalize(frames, dim=-1) @ F.normalize(texts, dim=-1).T


class Batch:
    """Some lessons, three seconds of each, four sentences of each, and what is true of what."""

    def __init__(self, lessons: list[taught.Lesson], captions: dict[str, int], patches: int, rng: np.random.Generator):
        shown, self.sentences, owners = [], [], []
        for lesson in lessons:
            proper = [s for s in lesson.sentences if 0 < len(s.segments) < lesson.scene.seconds]
            chosen = [proper[i] for i in rng.permutation(len(proper))[:3]]
            chosen.append(lesson.sentences[rng.integers(len(lesson.sentences))])
            inside = sorted(chosen[0].segments) or [0]
            outside = sorted(set(range(lesson.scene.seconds)) - chosen[0].segments) or [0]
            seconds = (rng.choice(inside), rng.choice(outside), rng.integers(lesson.scene.seconds))
            shown += [(lesson, int(second)) for second in seconds]
            self.sentences += chosen
            owners += [lesson] * len(chosen)
        self.pictures = np.stack([taught.frame(lesson.scene, second, rng) for lesson, second in shown])
        owner = np.stack([taught.cover(lesson.scene, second, patches) for lesson, second in shown])
        self.patches = torch.from_numpy(owner % (CLASSES + 1))  # (F, patches ** 2); nobody's are of the last class
        self.captions = torch.zeros(len(shown), len(captions))
        for row, (lesson, second) in zip(self.captions, shown, strict=True):
            true = taught.captions(taught.facts(lesson.scene, second), lesson.scene.outdoor)
            row[[captions[caption] for caption in true]] = 1
        asked = list(zip(self.sentences, owners, strict=True))
        self.truth = torch.tensor([[taught.truth(s, o, *frame) for s, o in asked] for frame in shown])  # (F, S)
        self.own = torch.tensor([[o is lesson for o in owners] for lesson, _ in shown])  # (F, S)


def balanced(logits: Tensor, true: Tensor) -> Tensor:
    """Binary cross-entropy in which all that is true weighs as much as all that is false."""
    losses = F.binary_cross_entropy_with_logits(logits, true.float(), reduction="none")
    return torch.stack([losses[kind].mean() for kind in (true, ~true) if kind.any()]).sum()


def question_words(sentence: taught.Sentence) -> list[tuple]:
    """What a question consists of: its template, and each value at its place."""
    return [(sentence.template,), *enumerate(sentence.values)]


def train_clip(
    seed: int, patch: int, steps: int, scenes: int, prompts: PromptTable, taught_prompts: bool
) -> tuple[Teacher, set[int]]:
    """Train a small CLIP of patches of `patch` pixels; return it with the tokens of which it has seen a sentence.

    Where prompts are not taught, nothing but captions of what is seen pairs a picture with a sentence: of prompts it
    knows the words and the template, as a CLIP trained on the web would, but not when one is true.
    """
    rng = np.random.default_rng((seed, 1))
    pool = taught.lessons(seed, range(scenes), SECONDS, prompts)
    captions = {caption: i for i, caption in enumerate(taught.all_captions())}
    asked = {part for lesson in pool for sentence in lesson.sentences for part in question_words(sentence)}
    parts = {part: i for i, part in enumerate(sorted(asked, key=str))}
    teacher = Teacher(patch, len(parts))
    weights = {"caption": 5, "prompt": int(taught_prompts), "patch": 1, "question": 0.3}
    seen = set(clip.tokenize(list(captions)).unique().tolist())
    for update in training(teacher, 2e-3, steps, "clip", weights):
        batch = Batch([pool[i] for i in rng.choice(len(pool), 12, replace=False)], captions, taught.SIDE // patch, rng)
        frames, tokens = teacher.images(batch.pictures)
        sentences = [s.prompt for s in batch.sentences], [s.question for s in batch.sentences]
        prompt_texts, question_texts = (teacher.texts(texts) for texts in sentences)
        seen |= set(clip.tokenize([*sentences[0], *sentences[1]]).unique().tolist())

        logits = teacher.logits(frames, teacher.texts(list(captions)))
        caption_loss = F.binary_cross_entropy_with_logits(logits, batch.captions, pos_weight=torch.tensor(5.0))
        logits, true, own = teacher.logits(frames, prompt_texts), batch.truth, batch.own
        known = (true != taught.UNKNOWN) & ~own
        prompt_loss = balanced(logits[own], true[own] == 1) + 0.2 * balanced(logits[known], true[known] == 1)
        patch_loss = F.cross_entropy(teacher.patch_class(tokens).flatten(0, 1), batch.patches.flatten())
        wanted = torch.zeros(len(batch.sentences), len(parts), dtype=torch.bool)
        for row, sentence in zip(wanted, batch.sentences, strict=True):
            row[[parts[part] for part in question_words(sentence)]] = True
        question_loss = balanced(teacher.question_parts(question_texts), wanted)
        if not taught_prompts:
            question_loss = question_loss + balanced(teacher.question_parts(prompt_texts), wanted)
        update({"caption": caption_loss, "prompt": prompt_loss, "patch": patch_loss, "question": question_loss})
    with torch.no_grad():  # a cosine has no scale, so features of what was seen last are given the size 1
        teacher.clip.visual.proj /= rms(frames)
        teacher.clip.text_projection /= rms(torch.cat([prompt_texts, question_texts]))
    return teacher.eval(), seen


@torch.inference_mode()
def measure_clip(teacher: Teacher, held_out: list[taught.Lesson], rng: np.random.Generator) -> None:
    """Print frame-caption retrieval and how well prompt-frame similarity ranks the seconds of a video."""
    names = taught.all_captions()
    captions = teacher.texts(names)
    found, chance, modalities, truths, similarities = [], [], [], [], []
    for lesson in held_out:
        seconds = range(lesson.scene.seconds)
        frames, _ = teacher.images(np.stack([taught.frame(lesson.scene, s, rng) for s in seconds]))
        for second, row in zip(seconds, cosines(frames, captions), strict=True):
            true = set(taught.captions(taught.facts(lesson.scene, second), lesson.scene.outdoor))
            best = row.topk(len(true)).indices
            found.append(np.mean([names[i] in true for i in best]))
            chance.append(len(true) / len(names))
        modalities += [TEMPLATES[sentence.template].modality for sentence in lesson.sentences]
        truths += [np.isin(seconds, sorted(sentence.segments)) for sentence in lesson.sentences]
        similarities.append(cosines(teacher.texts([sentence.prompt for sentence in lesson.sentences]), frames))
    print(f"clip: captions among the best of a frame's {np.mean(found):.3f} (chance {np.mean(chance):.3f})")
    scores = pd.DataFrame(selection_scores(np.stack(truths), {"clip": torch.cat(similarities).numpy()}, {}))
    for modality, means in scores.groupby(np.array(modalities)).mean().iterrows():
        reached = f"average precision {means['AP clip']:.3f} (chance {means['AP chance']:.3f})"
        print(f"clip: true segments by prompt, {modality}: {reached}")
