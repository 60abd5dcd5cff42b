#!/usr/bin/env python3
"""Small Stable Diffusion folders with random weights, what diffusers makes of prompts with them, and odd strings as tokens.

  make_prompts.py BPE [DIR]     BPE is CLIP's bpe_simple_vocab_16e6.txt.gz; DIR is `prompts` beside this script by default
  make_prompts.py BPE DIR all   the strings alone, with CLIP's whole vocabulary (too large to keep here)

  DIR/{sd1,sd2,sdxl}/model      whole folders as `save_pretrained` writes them, with the tokenizers' files of each generation
  DIR/*/{cases.json,io.safetensors}   prompts and their embeddings
  DIR/strings.json.gz           strings, and a hash of their tokens for each tokenizer
  DIR/whole.json.gz             such hashes of the same strings with CLIP's whole vocabulary
  DIR/tokenizers                the tokenizers that no folder has

The vocabulary is the first part of CLIP's own (OpenAI, MIT licence; the file comes with the package open_clip_torch). Windows
and emphasis, which diffusers has not, are computed here from their definitions: the pieces of an emphasised prompt and their
weights are written out by hand. Weights are random as in make.py, stored in float16; outputs are computed in float32.

Needs torch, diffusers, transformers and safetensors (made with torch 2.15, diffusers 0.42, transformers 5.24). The same
versions give the same bytes.
"""
import gzip, json, pathlib, random, shutil, sys, tempfile, unicodedata
import torch
from diffusers import (AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler, StableDiffusionPipeline,
                       StableDiffusionXLPipeline, UNet2DConditionModel)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from make import randomised

torch.set_num_threads(1)
ALL, CUT = 49152 - 256 - 2, 800
START, END = "<|startoftext|>", "<|endoftext|>"
ROOM = 75


# --- tokenizers -------------------------------------------------------------------------------------------------------

def alphabet():
    """The signs that stand for bytes, in CLIP's order."""
    bytes_ = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in bytes_] + [chr(256 + i) for i in range(256 - len(bytes_))]


def words(merges):
    signs = alphabet()
    all_ = signs + [sign + "</w>" for sign in signs] + ["".join(pair.split()) for pair in merges] + [START, END]
    return {word: i for i, word in enumerate(all_)}


def token(content, **more):
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False, **more}


def tokenizer(dir, merges, kind):
    """The files beside a vocabulary as each generation of models has them; "saved" is what transformers 5 writes."""
    shutil.rmtree(dir, ignore_errors=True)
    dir.mkdir(parents=True)
    vocabulary = words(merges)
    config = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    pad = END if kind in ("sd1", "saved") else "!"
    names = {"bos_token": START, "eos_token": END, "unk_token": END}
    if kind == "xl2":
        described = {0: token("!", normalized=False), len(vocabulary) - 2: token(START), len(vocabulary) - 1: token(END)}
        config["added_tokens_decoder"] = {str(i): {**value, "special": True} for i, value in described.items()}
        config.update(names, pad_token=pad)
    else:
        config.update({key: {"__type": "AddedToken", **token(name)} for key, name in names.items()}, pad_token=pad)
    write(dir / "vocab.json", vocabulary)
    (dir / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    write(dir / "tokenizer_config.json", config)
    write(dir / "special_tokens_map.json", {**{key: token(name) for key, name in names.items()}, "pad_token": pad})
    if kind == "added":
        write(dir / "added_tokens.json", {"<thing>": len(vocabulary), "<Two Words>": len(vocabulary) + 1})
    loaded = CLIPTokenizer.from_pretrained(dir)
    if kind == "saved":
        shutil.rmtree(dir)
        loaded.save_pretrained(dir)
        loaded = CLIPTokenizer.from_pretrained(dir)
    return loaded


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


def strings(count, seed=11):
    """Texts that tokenizers are likely to disagree about; no sign that Unicode 14 has not assigned, and no surrogates."""
    rng = random.Random(seed)
    plain = """a an the of in photo painting portrait red blue coat bag shoe person woman man standing beach sunset highly detailed 8k
      masterpiece trending artstation oil canvas Rembrandt McDonald iPhone naïve café Zürich coöperate smörgåsbord façade""".split()
    tails = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "’s", "'sx", "''", "'", "s'"]
    spaces = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u0085", "\u1680", "\u2028", "\u202f", "\u205f", "\x0b", "\x0c",
              "\x1c", "\x1d", "\x1e", "\x1f", "\u180e", "\u200b", "\ufeff", "\u2060"]
    emoji = ["🙂", "👩‍🚀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "👍🏽", "❤️", "☃", "™", "©", "1️⃣", "🫠"]
    specials = [START, END, START.upper(), END.title(), "<|startoftext", "|endoftext|>", "<|endoftext|", "</w>", "<thing>", "<THING>", "<Two Words>",
                "<two words>", "!", "!!", "!!!?", "\\", "#version: 0.2"]
    ranges = [(0x20, 0x7F), (0xA0, 0x180), (0x180, 0x250), (0x370, 0x400), (0x400, 0x530), (0x590, 0x600), (0x600, 0x700), (0x900, 0x980), (0xE00, 0xE80),
              (0x1100, 0x1200), (0x1E00, 0x2000), (0x2000, 0x2070), (0x2070, 0x20D0), (0x2100, 0x2190), (0x2460, 0x2500), (0x3040, 0x3100), (0x3130, 0x3190),
              (0x4E00, 0x9FA0), (0xAC00, 0xD7A4), (0xF900, 0xFB00), (0xFB00, 0xFE00), (0xFF00, 0xFFF0), (0x10400, 0x10450), (0x1D400, 0x1D800), (0x1F300, 0x1F650),
              (0x20000, 0x20100), (0, 0x20), (0x7F, 0xA0)]
    marks = [chr(i) for i in range(0x300, 0x370)] + ["\u0327", "\u093c", "\u0e38", "\u1161", "\u11a8", "\u3099", "\ufe0f", "\u200d"]

    def letters():
        low, high = rng.choice(ranges)
        found = [chr(rng.randrange(low, high)) for _ in range(rng.randrange(1, 9))]
        return "".join(c for c in found if unicodedata.category(c) not in ("Cn", "Cs", "Co"))

    def number():
        return rng.choice([str(rng.randrange(10 ** rng.randrange(1, 12))), f"{rng.random():.3f}", "½", "²³", "Ⅷ", "٣٤", "１２", "1,000.50", "0x1F", "-7", "3D", "4k"])

    def case(text):
        return rng.choice([text, text.upper(), text.title(), text.swapcase()])

    def marked():
        return "".join(rng.choice("aeiouncsxAEIOU한กक") + "".join(rng.choice(marks) for _ in range(rng.randrange(0, 4))) for _ in range(rng.randrange(1, 5)))

    def long():
        return rng.choice(["a", "ab", "photo", "é", "漢", "🙂", "x1", "?!", "_", "-"]) * rng.randrange(20, 200)

    def punctuation():
        return "".join(rng.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«»…—“”„¿¡·•") for _ in range(rng.randrange(1, 7)))

    makers = [(30, lambda: case(rng.choice(plain))), (8, lambda: rng.choice(plain) + rng.choice(tails)), (16, letters), (6, number), (5, lambda: rng.choice(emoji)),
              (6, marked), (1, long), (7, punctuation), (4, lambda: rng.choice(specials)), (2, lambda: "İ" + rng.choice("IiıſßẞΣςﬁǅ")), (3, lambda: "https://a.b/c?d=e&f#g_h-i")]
    weights = [weight for weight, _ in makers]
    first = ["", " ", "\n", *specials, *emoji, *spaces, "a" + END + "b", END.join("abc"), "Ｆｕｌｌ ｗｉｄｔｈ", "e\u0301 é", "\u1100\u1161\u11a8 각", "ΑΣ ΑΣΑ"]
    made = list(first)
    while len(made) < count:
        parts = [rng.choices(makers, weights)[0][1]() for _ in range(rng.randrange(1, 7))]
        made.append("".join(part + rng.choice(["", " ", " ", rng.choice(spaces)]) for part in parts))
    return made


def fnv(ids):
    value = 0x811C9DC5
    for id in ids:
        for byte in id.to_bytes(4, "little"):
            value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def hashed(dir, merges, kind, texts):
    return [fnv(row) for row in tokenizer(dir / kind, merges, kind)(texts, verbose=False).input_ids]


def write_gz(path, value):
    path.write_bytes(gzip.compress(json.dumps(value, separators=(",", ":")).encode(), mtime=0))


def odd_strings(dir, merges, texts):
    hashes = {kind: hashed(dir / "tokenizers", merges, kind, texts) for kind in ("sd1", "sd2", "xl2", "added", "saved")}
    write_gz(dir / "strings.json.gz", {"texts": texts, "hashes": hashes})


def whole_vocabulary(dir, pairs, texts):
    """Each generation's tokenizer with all of CLIP's words: the one that models in single files are read with."""
    with tempfile.TemporaryDirectory() as folder:
        hashes = {kind: hashed(pathlib.Path(folder), pairs, kind, texts) for kind in ("sd1", "sd2", "xl2")}
    assert hashes["sd2"] == hashes.pop("xl2"), "the same tokenizer, described in two ways"
    write_gz(dir / "whole.json.gz", hashes)


# --- prompts ----------------------------------------------------------------------------------------------------------

LONG = ", ".join(f"a photo of the {colour} coat number {i} on a beach at sunset" for i, colour in enumerate(["red", "blue", "green", "black", "grey", "white"]))
DIFFUSERS = [
    {"name": "plain", "prompts": ["a photo of a red coat", "Two Blue bags!! it's new", ""]},
    {"name": "negative", "prompts": ["a photo of a red coat", "a shoe"], "negative": ["blurry, low quality", ""]},
    {"name": "long", "prompts": [LONG], "negative": ["bad, " * 60]},
    {"name": "skip0", "prompts": ["a photo of a red coat"], "negative": ["blurry"], "clip_skip": 0},
    {"name": "skip1", "prompts": ["a photo of a red coat"], "negative": ["blurry"], "clip_skip": 1},
    {"name": "skip2", "prompts": ["a photo of a red coat"], "clip_skip": 2},
]
SECOND = [
    {"name": "second", "prompts": ["a red coat"], "prompts_2": ["in the style of an oil painting"], "negative": ["blurry"], "negative_2": ["noise!"]},
    {"name": "second-empty", "prompts": ["a red coat"], "prompts_2": [""], "negative": ["blurry"], "negative_2": [""]},
]
WINDOWS = [
    {"name": "windows", "prompts": [LONG], "negative": ["blurry"]},
    {"name": "windows-negative", "prompts": ["a red coat"], "negative": ["bad, " * 60], "clip_skip": 1},
    {"name": "exactly", "prompts": ["a " * ROOM], "negative": ["a " * (ROOM + 1)]},
]
EMPHASIS = [
    {"name": "emphasis", "prompts": ["a (red:1.3) coat on ((the beach)), [blurry] sky"],
     "pieces": [["a ", 1.0], ["red", 1.3], [" coat on ", 1.0], ["the beach", 1.21], [", ", 1.0], ["blurry", 1 / 1.1], [" sky", 1.0]]},
    {"name": "emphasis-nested", "prompts": [r"(a (red:1.5) coat) \(left\) [old [worn: 0.5] :2 (open"],
     "pieces": [["a ", 1.1], ["red", 1.65], [" coat", 1.1], [" (left) ", 1.0], ["old ", 1 / 1.1], ["worn: 0.5", 1 / 1.1 / 1.1],
                [" :2 ", 1 / 1.1], ["open", 1.1 / 1.1]]},
]


def encoders(pipe):
    pairs = [(pipe.tokenizer, pipe.text_encoder)]
    return pairs + [(pipe.tokenizer_2, pipe.text_encoder_2)] if hasattr(pipe, "text_encoder_2") else pairs


def windowed(pipe, pieces, skip, count):
    """One text's windows behind one another, filled up to `count` of them with empty ones: tokens and the pooled text."""
    parts, pooled = [], None
    for tokenizer, encoder in encoders(pipe):
        ids, weights = [], []
        for text, weight in pieces:
            found = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
            ids, weights = ids + found, weights + [weight] * len(found)
        windows = []
        for at in range(0, count * ROOM, ROOM):
            part, weight = ids[at:at + ROOM], torch.tensor(weights[at:at + ROOM])
            row = [tokenizer.bos_token_id, *part, tokenizer.eos_token_id]
            row += [tokenizer.pad_token_id] * (ROOM + 2 - len(row))
            out = encoder(torch.tensor([row]), output_hidden_states=True)
            if hasattr(pipe, "text_encoder_2"):
                z = out.hidden_states[-(skip + 2)]
                pooled = out.text_embeds if at == 0 and "text_embeds" in out else pooled
            else:
                z = out.last_hidden_state if skip == 0 else encoder.final_layer_norm(out.hidden_states[-(skip + 1)])
            full = torch.ones(ROOM + 2)
            full[1:1 + len(part)] = weight
            if (full != 1).any():
                mean = z.mean()
                z = z * full[None, :, None]
                z = z * (mean / z.mean())
            windows.append(z)
        parts.append(torch.cat(windows, 1))
    return torch.cat(parts, -1), pooled


def windows_of(pipe, pieces):
    lengths = [sum(len(t(text, add_special_tokens=False, verbose=False).input_ids) for text, _ in pieces) for t, _ in encoders(pipe)]
    return max(1, -(-max(lengths) // ROOM))


def outputs(pipe, case):
    xl = hasattr(pipe, "text_encoder_2")
    if case in WINDOWS or case in EMPHASIS:
        positive = case.get("pieces") or [[case["prompts"][0], 1.0]]
        negative = [[case.get("negative", [""])[0], 1.0]]
        count = max(windows_of(pipe, positive), windows_of(pipe, negative))
        found = windowed(pipe, positive, case.get("clip_skip", 0), count), windowed(pipe, negative, 0, count)
        (p, pp), (n, np) = found
        return {"positive": p, "negative": n, **({"pooled": pp, "negative_pooled": np} if xl else {})}
    # One prompt as a string: an empty one for the second encoder then stands for the first one's, unlike in a list.
    texts = lambda key: case[key][0] if len(case.get(key, [])) == 1 else case.get(key)
    more = {"prompt_2": texts("prompts_2"), "negative_prompt_2": texts("negative_2")} if xl else {}
    found = pipe.encode_prompt(texts("prompts"), device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True,
                               negative_prompt=texts("negative"), clip_skip=case.get("clip_skip"), **more)
    return dict(zip(("positive", "negative", "pooled", "negative_pooled"), found))


def folder(dir, pipe, tokenizers, variant):
    # diffusers 0.42 asks for a name that transformers 5 has dropped; set so that torch does not take it for a part.
    for _, encoder in encoders(pipe):
        if not hasattr(encoder, "text_model"):
            object.__setattr__(encoder, "text_model", encoder)
    cases = DIFFUSERS + WINDOWS + EMPHASIS + (SECOND if hasattr(pipe, "text_encoder_2") else [])
    io = {}
    with torch.no_grad():
        for case in cases:
            for key, value in outputs(pipe, case).items():
                io[f"{case['name']}.{key}"] = value.clone().contiguous()
    shutil.rmtree(dir / "model", ignore_errors=True)
    pipe.to(torch.float16).save_pretrained(dir / "model", variant=variant)
    for name, source in tokenizers.items():
        shutil.rmtree(dir / "model" / name)
        shutil.copytree(source, dir / "model" / name)
    save_file(io, dir / "io.safetensors")
    mode = lambda case: "windows" if case in WINDOWS else "emphasis" if case in EMPHASIS else "diffusers"
    write(dir / "cases.json", [{**case, "mode": mode(case)} for case in cases])


def text_config(vocabulary, width, layers, **more):
    return CLIPTextConfig(vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=2,
                          bos_token_id=vocabulary - 2, eos_token_id=more.pop("eos", vocabulary - 1), pad_token_id=more.pop("pad", vocabulary - 1), **more)


def main(bpe, root, whole):
    pairs = gzip.open(bpe, "rt", encoding="utf-8").read().split("\n")[1:1 + ALL]
    root.mkdir(parents=True, exist_ok=True)
    merges = pairs if whole else pairs[:CUT]
    odd_strings(root, merges, strings(20_000 if whole else 2_500))
    if whole:
        return
    whole_vocabulary(root, pairs, strings(2_500))
    half, count = torch.float16, len(words(merges))
    random_ = lambda model: randomised(model, half)
    tokenizers = lambda kind: (CLIPTokenizer.from_pretrained(root / "tokenizers" / kind), root / "tokenizers" / kind)
    small = dict(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, attention_head_dim=2, sample_size=8)
    upper = dict(down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
    vae = lambda **more: random_(AutoencoderKL(block_out_channels=(4, 4), down_block_types=("DownEncoderBlock2D",) * 2, sample_size=16, norm_num_groups=2,
                                               up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, **more))
    nothing = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)

    # Stable Diffusion 1: an end of text that old files give the number 2, OpenAI's activation.
    (loaded, source) = tokenizers("sd1")
    folder(root / "sd1", StableDiffusionPipeline(vae=vae(), tokenizer=loaded, unet=random_(UNet2DConditionModel(**small, **upper, cross_attention_dim=12)),
           text_encoder=random_(CLIPTextModel(text_config(count, 12, 3, eos=2))), scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1), **nothing), {"tokenizer": source}, None)

    # Stable Diffusion 2: OpenCLIP's activation, texts filled up with `!`, velocity; the variant's names of files.
    (loaded, source) = tokenizers("sd2")
    folder(root / "sd2", StableDiffusionPipeline(vae=vae(), tokenizer=loaded, unet=random_(UNet2DConditionModel(**small, **upper, cross_attention_dim=12, use_linear_projection=True)),
           text_encoder=random_(CLIPTextModel(text_config(count, 12, 3, hidden_act="gelu", pad=1))), scheduler=DDIMScheduler(prediction_type="v_prediction", steps_offset=1, clip_sample=False), **nothing),
           {"tokenizer": source}, "fp16")

    # Stable Diffusion XL: two encoders, the second with a projection of another width.
    (first, source), (second, source_2) = tokenizers("saved"), tokenizers("xl2")
    unet = UNet2DConditionModel(**small, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=20,
                                use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=36)
    folder(root / "sdxl", StableDiffusionXLPipeline(vae=vae(scaling_factor=0.13025), tokenizer=first, tokenizer_2=second, unet=random_(unet),
           text_encoder=random_(CLIPTextModel(text_config(count, 12, 4))),
           text_encoder_2=random_(CLIPTextModelWithProjection(text_config(count, 8, 4, hidden_act="gelu", pad=1, projection_dim=12))),
           scheduler=EulerDiscreteScheduler(), add_watermarker=False), {"tokenizer": source, "tokenizer_2": source_2}, None)

    # The others lie in the models' folders.
    for kind in ("sd1", "sd2", "xl2", "saved"):
        shutil.rmtree(root / "tokenizers" / kind)


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else pathlib.Path(__file__).parent / "prompts", len(sys.argv) > 3)
