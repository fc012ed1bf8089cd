"""A small CLIP and a narrow VGGish with random weights, in the checkpoint formats of the real ones."""

import torch

import utils.torchvision_cpu  # noqa: F401 - before clip, which imports torchvision

# isort: split
import clip

from feat_script.vggish import VGGish


def small_clip(seed=0):
    """112 px, patches of 16: 50 tokens of width 128, 4 blocks; features of 64."""
    torch.manual_seed(seed)
    model = clip.model.CLIP(
        embed_dim=64,
        image_resolution=112,
        vision_layers=4,
        vision_width=128,
        vision_patch_size=16,
        context_length=77,
        vocab_size=49408,
        transformer_width=64,
        transformer_heads=1,
        transformer_layers=2,
    )
    return model.eval().requires_grad_(False)


def save_small_clip(path, seed=0):
    torch.save(small_clip(seed).state_dict(), path)
    return path


def save_narrow_vggish(path):
    torch.manual_seed(0)
    torch.save(VGGish((8, 8, 16, 16, 16, 16), (32, 32, 128)).state_dict(), path)
    return path
