"""The verb `caption` with a real `transformers serve` process with a tiny random Qwen3-VL.

The words are noise; that frames of the real clip go through decoding, HTTP, the processor and the
vision tower to the text is not. The processor is the real one without its video part, which alone
would need torchvision.
"""

import asyncio
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from PIL import Image, ImageOps

from hocslm_jax.__main__ import main
from hocslm_jax.language.caption import client
from hocslm_jax.language.caption.answers import read_answer
from hocslm_jax.language.caption.video import Frames, read_frames

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
for package in ("av", "httpx2", "fastapi", "uvicorn", "openai", "accelerate"):
    pytest.importorskip(package)

CLIP = "S001C001P001R001A001"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
PROCESSOR = """
from transformers import Qwen3VLProcessor


class ImageProcessor(Qwen3VLProcessor):
    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template)
"""


def build_model(folder, tokenizer):
    """A Qwen3-VL with random weights that `transformers serve` loads from `folder`."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    text = {"vocab_size": 151936, "hidden_size": 32, "intermediate_size": 64, "head_dim": 16}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    text |= {"initializer_range": 0.3, "tie_word_embeddings": True}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4} | {
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
    }
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2}
    vision |= {"out_hidden_size": 32, "num_position_embeddings": 64, "initializer_range": 0.3}
    vision["deepstack_visual_indexes"] = [0]
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = 151643
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tokenizer / name).read_bytes())
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "processing.py").write_text(PROCESSOR)
    image = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 16, "merge_size": 2}
    image |= {"temporal_patch_size": 2, "size": {"shortest_edge": 1024, "longest_edge": 1 << 20}}
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    auto = {"AutoProcessor": "processing.ImageProcessor"}
    processor = {"processor_class": "ImageProcessor", "auto_map": auto}
    (folder / "processor_config.json").write_text(json.dumps(processor))


@pytest.fixture(scope="module")
def server(shared, tmp_path_factory):
    """Address and model name of the running server."""
    folder = tmp_path_factory.mktemp("qwen3_vl")
    build_model(folder, shared / "data/qwen3_tokenizer")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    drop = ("proxy", "PROXY")
    environment = {k: v for k, v in os.environ.items() if not k.endswith(drop)}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    serve = "import sys; from transformers.cli.transformers import main; sys.exit(main())"
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    options += ["--trust-remote-code", "--default-seed", "0"]
    log = (folder / "log").open("w+b")
    process = subprocess.Popen(
        [sys.executable, "-c", serve, "serve", str(folder), *options],
        env=environment,
        stdout=log,
        stderr=log,
    )
    url = f"http://127.0.0.1:{port}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                opener.open(f"{url}/health", timeout=5).close()
                break
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            time.sleep(0.1)
        yield url, str(folder)
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def caption(tmp_path, server, videos, name):
    url, model = server
    arguments = ["--videos", str(videos), "--out", str(tmp_path / name), "--base-url", url]
    arguments += ["--model", model, "--frames", "4", "--size", "128", "--max-tokens", "12"]
    assert main(["caption", *arguments, "--no-check", "--timeout", "100"]) == 0
    return json.loads((tmp_path / name).read_text())


def test_the_real_clip_is_captioned(tmp_path, shared, server, capsys):
    row = caption(tmp_path, server, shared / "data/clips", "captions.jsonl")
    assert row["id"] == CLIP and row["model"] == server[1] and row["caption"]
    assert "1 written, 0 skipped, 0 rejected, 0 failed" in capsys.readouterr().out
    again = caption(tmp_path, server, shared / "data/clips", "again.jsonl")
    assert again["caption"] == row["caption"], "greedy decoding of the same frames"


def invert(jpeg):
    buffer = io.BytesIO()
    ImageOps.invert(Image.open(io.BytesIO(jpeg))).save(buffer, format="JPEG")
    return buffer.getvalue()


def tokens(reply):
    return reply["usage"]["prompt_tokens"]


def test_the_caption_depends_on_the_frames(shared, server):
    url, model = server
    frames = read_frames(shared / f"data/clips/{CLIP}_rgb.avi", 4, 128)
    half = Frames(frames.jpegs[:2], frames.indices[:2], frames.total, frames.fps)
    inverted = tuple(invert(jpeg) for jpeg in frames.jpegs)
    other = Frames(inverted, frames.indices, frames.total, frames.fps)

    async def replies():
        server = client.connect(url, None, 100.0)
        async with server.client:
            options = {"model": model, "temperature": 0.0, "max_tokens": 12}
            return [
                await client.ask([server], options | client.as_images(shown, "What?"), 0, 0.0)
                for shown in (frames, half, other)
            ]

    whole, part, changed = asyncio.run(replies())
    tiles = 4 * 2  # of 32 x 32 pixels in each picture of 128 x 72
    marks = 2  # around each picture
    assert tokens(whole) - tokens(part) == 2 * (tiles + marks)
    texts = [read_answer(reply)[0] for reply in (whole, part, changed)]
    assert len(set(texts)) == 3, texts
