"""SAM with prompts of many frames against the official API, one image at a time, in one run.

    python -m benchmarks.segmenter [--sam vit_b] [--frames 2] [--prompts 8] [--rounds 3]

Prints Markdown. Both sides have the same random weights and are given the same frames of 320 x 240
and the same boxes with a point each; each prompt asks for one mask of box and point and three of
the point. The official side is SamPredictor in float32: set_image, then either predict, prompt by
prompt, or predict_torch with all prompts of the image. Ours ends with the low-resolution masks,
which is what is used of them; the official side ends with masks of the frame's size, since it
offers no less. Sides run by turns (A B C A B C ...), medians of the rounds; on the CPU one
thread's process time, on a GPU wall time up to the end of the work. Without --device a GPU is
taken where there is one, and then the encoder runs in bfloat16. The ceiling is the frames per
second that the machine's best matrix product, measured beside, would allow the official network.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.segmenters.sam.attention import use_fused_attention
from pipeline.segmenters.sam.decoding import SamDecoder
from pipeline.segmenters.sam.loading import resize_input
from pipeline.torchvision_shim import ensure_torchvision

HEIGHT, WIDTH = 240, 320


class Case:
    """The same frames and prompts for both sides.

    Args:
        sam: official Sam with random weights, on its device.
        num_frames: frames.
        num_prompts: prompts per frame.
        compiled: whether our encoder is compiled.
    """

    def __init__(self, sam: Any, num_frames: int, num_prompts: int, *, compiled: bool) -> None:
        from segment_anything import SamPredictor

        self.sam, self.device = sam, sam.device
        fused = copy.deepcopy(sam)
        use_fused_attention(fused)
        self.decoder = SamDecoder(fused, compiled=compiled)
        rng = np.random.default_rng(0)
        self.frames = rng.integers(0, 256, (num_frames, HEIGHT, WIDTH, 3), np.uint8)
        self.on_device = torch.from_numpy(self.frames).to(self.device)
        low = rng.uniform(0, 0.4, (num_frames, num_prompts, 2))
        high = rng.uniform(0.6, 1, (num_frames, num_prompts, 2))
        self.boxes, self.points = np.concatenate([low, high], axis=2), (low + high) / 2
        self.scale = np.array([WIDTH, HEIGHT])
        self.frame_index = torch.arange(num_frames, device=self.device).repeat_interleave(
            num_prompts
        )
        self.predictors = [SamPredictor(sam) for _ in range(num_frames)]
        self.embedded = self.decoder.embed(self.on_device)

    def set_images(self) -> None:
        """Encode, officially."""
        for predictor, frame in zip(self.predictors, self.frames, strict=True):
            predictor.set_image(frame)

    def predict_each(self) -> list[Any]:
        """Decode officially, prompt by prompt: low-resolution logits of each."""
        found = []
        label = np.ones(1)
        for predictor, boxes, points in zip(self.predictors, self.boxes, self.points, strict=True):
            for box, point in zip(boxes, points, strict=True):
                place, corners = point[None] * self.scale, box * np.tile(self.scale, 2)
                both = predictor.predict(place, label, corners, multimask_output=False)
                alone = predictor.predict(place, label, multimask_output=True)
                found.append(np.concatenate([both[2], alone[2]]))
        return found

    def predict_together(self) -> None:
        """Decode officially, all prompts of an image in a call."""
        for predictor, boxes, points in zip(self.predictors, self.boxes, self.points, strict=True):
            size = (HEIGHT, WIDTH)
            places = predictor.transform.apply_coords(points * self.scale, size)
            corners = predictor.transform.apply_boxes(boxes * np.tile(self.scale, 2), size)
            places, corners = (
                torch.as_tensor(values, dtype=torch.float32, device=self.device)
                for values in (places[:, None], corners)
            )
            labels = torch.ones(len(places), 1, device=self.device)
            predictor.predict_torch(places, labels, corners, multimask_output=False)
            predictor.predict_torch(places, labels, multimask_output=True)

    def embed(self) -> None:
        """Encode our way."""
        self.embedded = self.decoder.embed(self.on_device)

    def decode(self) -> torch.Tensor:
        """Decode our way: (P, 4, S, S) logits."""
        # SAM counts pixel centres as whole numbers; ours are shares from the frame's edge.
        points, boxes = (
            torch.from_numpy(values.reshape(-1, values.shape[-1]) + 0.5 / scale)
            .float()
            .to(self.device)
            for values, scale in (
                (self.points, self.scale),
                (self.boxes, np.tile(self.scale, 2)),
            )
        )
        return self.decoder.decode(self.embedded, self.frame_index, boxes, points).logits


def medians(
    sides: Sequence[Callable[[], object]], rounds: int, device: torch.device
) -> list[float]:
    """Seconds of each side, by turns, after one round that warms up."""
    times: list[list[float]] = [[] for _ in sides]
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for _ in range(rounds + 1):
        for side, taken in zip(sides, times, strict=True):
            start = clock()
            side()
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(clock() - start)
    return [statistics.median(taken[1:]) for taken in times]


def report(case: Case, rounds: int) -> float:
    """Print the table; our seconds per frame for the whole."""
    sides: dict[str, dict[str, Callable[[], object]]] = {
        "decoder": {
            "predict": case.predict_each,
            "predict_torch": case.predict_together,
            "ours": case.decode,
        },
        "encoder": {"set_image": case.set_images, "ours": case.embed},
        "whole": {
            "set_image, predict_torch": lambda: (case.set_images(), case.predict_together()),
            "ours": lambda: (case.embed(), case.decode()),
        },
    }
    print("| part | official calls | official, ms a frame | ours | official / ours |")
    print("| --- | --- | ---: | ---: | ---: |")
    for part, functions in sides.items():
        times = medians(list(functions.values()), rounds, case.device)
        *official, ours = (1000 * seconds / len(case.frames) for seconds in times)
        for name, taken in zip(functions, official, strict=False):
            row = f"| {part} | {name} | {taken:.1f} | {ours:.1f} | {taken / ours:.2f} |"
            print(row, flush=True)
    return ours / 1000


def report_difference(case: Case) -> None:
    """Print by how much our masks differ from the official ones."""
    official = np.stack(case.predict_each())
    ours = case.decode().float().cpu().numpy()
    rows = int(case.embedded.extent[0])
    ours, official = ours[:, :, :rows], official[:, :, :rows]
    same = ((ours > 0) == (official > 0)).mean()
    print(f"\nLargest difference of logits {np.abs(ours - official).max():.1e}, largest logit ")
    print(f"{np.abs(official).max():.2f}; {100 * same:.3f} % of mask cells agree. set_image ")
    print("resizes pictures in 8 bits, ours in floating point.")


def report_ceiling(case: Case, seconds_per_frame: float, num_prompts: int) -> None:
    """Print the official network's FLOP per frame, and what the best matrix product would allow."""
    sam, device = case.sam, case.device
    pixels = torch.empty(1, 3, sam.image_encoder.img_size, sam.image_encoder.img_size)
    encoder = counted(copy.deepcopy(sam.image_encoder).to("meta"), pixels.to("meta"))
    decoder = counted(*decoder_on_meta(sam))
    total = encoder + 2 * num_prompts * decoder
    peak, rate = matrix_rate(device), 1 / seconds_per_frame
    print(f"\nOfficial network: {encoder / 1e12:.3f} TFLOP a frame, {decoder / 1e12:.5f} a prompt ")
    print(f"and answer; best matrix product {peak / 1e12:.3f} TFLOP/s; ceiling {peak / total:.3g} ")
    print(f"frames/s; ours {rate:.3g}, {100 * rate * total / peak:.0f} % of it.")


def counted(module: Any, *inputs: Any) -> int:
    """FLOP of one call."""
    with FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops())


def decoder_on_meta(sam: Any) -> tuple[Any, ...]:
    """The official mask decoder and inputs of one prompt of three tokens, without storage."""
    channels, grid = sam.prompt_encoder.embed_dim, sam.prompt_encoder.image_embedding_size
    picture = torch.empty(1, channels, *grid, device="meta")
    tokens = torch.empty(1, 3, channels, device="meta")
    return (
        copy.deepcopy(sam.mask_decoder).to("meta").predict_masks,
        picture,
        picture,
        tokens,
        picture,
    )


def matrix_rate(device: torch.device) -> float:
    """FLOP/s of a large matrix product in the encoder's precision."""
    side = 1024 if device.type == "cpu" else 8192
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / medians([lambda: left @ right], 9, device)[0]


def random_sam(sam_type: str, side: int, device: torch.device) -> Any:
    """Official Sam with random weights; fresh position tables are zeros, so these are drawn too."""
    ensure_torchvision()
    from segment_anything import sam_model_registry

    torch.manual_seed(0)
    sam = sam_model_registry[sam_type](checkpoint=None)
    for name, parameter in sam.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    resize_input(sam, side)
    return sam.to(device).eval().requires_grad_(False)


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.segmenter")
    parser.add_argument("--sam", default="vit_b", choices=["vit_b", "vit_l", "vit_h"])
    parser.add_argument("--side", type=int, default=1024, help="pixels of SAM's input")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=8, help="per frame")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="our encoder")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    device = torch.device(options.device)
    sam = random_sam(options.sam, options.side, device)
    case = Case(sam, options.frames, options.prompts, compiled=options.compile)
    case.set_images()
    where = torch.cuda.get_device_name() if device.type == "cuda" else "one CPU thread"
    print(f"{options.sam}, {options.frames} frames, {options.prompts} prompts each, {where}, ")
    print(f"torch {torch.__version__}\n")
    seconds_per_frame = report(case, options.rounds)
    report_difference(case)
    report_ceiling(case, seconds_per_frame, options.prompts)


if __name__ == "__main__":
    main()
