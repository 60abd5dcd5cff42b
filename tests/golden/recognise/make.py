#!/usr/bin/env python3
"""Small recognisers with random weights: CLIP and SigLIP in transformers' layout, a safety checker, ONNX classifiers;
with inputs and what PyTorch, tokenizers, Pillow and onnxruntime make of them.

  make.py [DIR]     writes DIR/<name>/...; DIR is this script's folder by default

Every weight is random, biases and normalisations too, which start at 0 and 1 and would hide mistakes. Outputs are computed
in float32 from the stored values. Inputs are three texts or images. The words that the tokenizers learn are not the same in
every run, so all files are made together.

Needs torch, transformers, diffusers, safetensors, tokenizers, pillow, onnx and onnxruntime (made with torch 2.15,
transformers 5.23, diffusers 0.42, pillow 13.0, onnx 1.23 and onnxruntime 1.32).
"""
import json, pathlib, sys
import numpy as np, torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer,
                          SiglipConfig, SiglipModel)

torch.set_num_threads(1)
BATCH, LENGTH, SIDE = 3, 16, 32
TEXTS = ["a photo of a red coat", "a photo of two Blue bags, it's new", "x"]
CORPUS = ["a photo of a red coat", "a photo of a blue bag", "a drawing of the green shoe", "it's a new photo, they're old",
          "an image of something in colour", "naïve café", "bright and dark photos of a coat, a bag and a shoe"] * 20
ODD = ["", " ", "a photo of a red coat", "A PHOTO", "  many   spaces\tand\nlines ", "it's they're I'll don't", "2024 and 3.5",
       "café", "cafe\u0301", "naïve\u00a0space", "日本語", "🙂 smile 👩‍🚀", "a!!!b??", "<|endoftext|>", "a <|startoftext|> b", "İstanbul ǅ ß",
       "photo" * 30, "tab\x00nul", "ﬁ ＦＵＬＬ", "عربي", "_under_score-dash", "a'sb 'S"]


def randomised(model, dtype=torch.float32, seed=7):
    """Random weights that `dtype` can hold, in a model that computes in float32."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() > 1:
                noise = noise / max(weight[0].numel(), 16) ** 0.5
            elif name.endswith("weight") and weight.dim() == 1:
                noise = 1 + 0.3 * noise
            elif name in ("logit_scale", "logit_bias"):
                noise = 1.5 + 0.1 * noise
            else:
                noise = 0.3 * noise
            weight.copy_(noise.to(dtype).float())
    return model.eval()


def write_json(path, values):
    path.write_text(json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def save(dir, tensors, dtype, shards=False):
    tensors = {name: value.detach().to(dtype).contiguous() if value.is_floating_point() else value for name, value in tensors.items()}
    if not shards:
        return save_file(tensors, dir / "model.safetensors", metadata={"format": "pt"})
    names = sorted(tensors)
    parts = {f"model-{i + 1:05}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, dir / file, metadata={"format": "pt"})
    write_json(dir / "model.safetensors.index.json", {"metadata": {}, "weight_map": {n: f for f, p in parts.items() for n in p}})


def picture(width, height, seed):
    """Waves and noise, so that resizing has something to do; uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(x / (2.0 + c + seed) + y / (3.0 + c)) for c in range(3)]
    return np.clip(np.stack(waves, -1) + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


def clip_vocabulary(dir):
    """vocab.json and merges.txt of byte-level pairs with `</w>` at the ends of words."""
    pieces = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    pieces.normalizer = normalizers.Lowercase()
    pieces.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    trainer = trainers.BpeTrainer(vocab_size=800, end_of_word_suffix="</w>", show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    pieces.train_from_iterator(CORPUS, trainer)
    learned = json.loads(pieces.to_str())["model"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = alphabet + [letter + "</w>" for letter in alphabet]
    merges = []
    for pair in learned["merges"]:
        left, right = pair if isinstance(pair, list) else pair.split(" ")
        if all(p in words for p in (left, right)):
            merges.append(f"{left} {right}")
            if left + right not in words:
                words.append(left + right)
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {word: i for i, word in enumerate(words)}
    (dir / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False) + "\n")
    (dir / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return vocab, [tuple(m.split(" ")) for m in merges]


def unigram(dir):
    """A tokenizer.json like SigLIP's: pieces of words, small letters without punctuation, `</s>` at the end."""
    tok = Tokenizer(models.Unigram())
    tok.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(Regex(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"), ""),
                                           normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()])
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False)
    tok.train_from_iterator(CORPUS, trainer)
    tok.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", tok.token_to_id("</s>"))])
    tok.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tok.save(str(dir / "tokenizer.json"))
    write_json(dir / "tokenizer_config.json", {"pad_token": {"content": "</s>", "special": True}})
    return tok


def features(value):
    return value if torch.is_tensor(value) else value.pooler_output


def two_towers(dir, model, ids, mask, dtype, shards=False, extra=None):
    randomised(model, dtype)
    pixels = torch.randn(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        text = model.text_model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        vision = model.vision_model(pixel_values=pixels)
        whole = model(input_ids=ids, attention_mask=mask, pixel_values=pixels)
        io = {"ids": ids.to(torch.int32), "mask": torch.ones_like(ids).to(torch.int32) if mask is None else mask.to(torch.int32),
              "pixels": pixels, "text_last": text.last_hidden_state, "text_pooled": text.pooler_output,
              "text_hidden": torch.stack(text.hidden_states, 1), "vision_last": vision.last_hidden_state,
              "vision_pooled": vision.pooler_output,
              "text_embeds": features(model.get_text_features(input_ids=ids, attention_mask=mask)),
              "image_embeds": features(model.get_image_features(pixel_values=pixels)), "logits": whole.logits_per_image}
    write_json(dir / "config.json", json.loads(model.config.to_json_string(use_diff=False)) if extra is None else extra(model))
    state = model.state_dict()
    save(dir, {name: value for name, value in state.items()}, dtype, shards)
    save_file({name: value.contiguous() for name, value in io.items()}, dir / "io.safetensors")


def sizes(**more):
    return dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, **more)


def clip(dir, vocab, merges, dtype, shards=False, act="quick_gelu", eos=None, whole=True):
    tok = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)
    if whole:
        tok.save_pretrained(dir)
        for name in ("vocab.json", "merges.txt"):
            (dir / name).unlink(missing_ok=True)
    write_json(dir / "tokens.json", [{"text": text, "ids": tok(text, max_length=LENGTH, truncation=True, padding="max_length")["input_ids"]} for text in ODD])
    batch = tok(TEXTS, max_length=LENGTH, truncation=True, padding="max_length", return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    end = vocab["<|endoftext|>"]
    text = sizes(vocab_size=len(vocab), max_position_embeddings=LENGTH, hidden_act=act, eos_token_id=eos or end, bos_token_id=end - 1, pad_token_id=1)
    vision = sizes(image_size=SIDE, patch_size=8, hidden_act=act)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    two_towers(dir, model, ids, mask, dtype, shards)


def siglip(dir, dtype):
    tok = unigram(dir)
    end = tok.token_to_id("</s>")

    def padded(text):
        ids = tok.encode(text).ids
        ids = ids if len(ids) <= LENGTH else ids[:LENGTH - 1] + [end]
        return ids + [end] * (LENGTH - len(ids))

    write_json(dir / "tokens.json", [{"text": text, "ids": padded(text)} for text in ODD])
    ids = torch.tensor([padded(text) for text in TEXTS])
    text = sizes(vocab_size=tok.get_vocab_size(), max_position_embeddings=LENGTH)
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=sizes(image_size=SIDE, patch_size=8)))
    write_json(dir / "preprocessor_config.json", {"size": {"height": SIDE, "width": SIDE}, "resample": 3, "do_normalize": True,
               "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255, "do_resize": True, "do_rescale": True})
    two_towers(dir, model, ids, None, dtype)


def text_encoder(dir, vocab, merges, prefix):
    """A text encoder as diffusers keeps it; with `prefix` the names, the counted positions and the end of old files."""
    end = vocab["<|endoftext|>"]
    config = CLIPTextConfig(**sizes(vocab_size=len(vocab), max_position_embeddings=LENGTH, hidden_act="gelu", projection_dim=20,
                                    eos_token_id=2 if prefix else end, bos_token_id=1, pad_token_id=0))
    model = randomised(CLIPTextModelWithProjection(config), torch.float16, seed=9)
    tok = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)
    ids = tok(TEXTS, max_length=LENGTH, truncation=True, padding="max_length", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        out = model(input_ids=ids, output_hidden_states=True)
        inner = model.text_model
        skipped = inner.final_layer_norm(out.hidden_states[-2])
    state = {}
    for name, value in model.state_dict().items():
        inside = name.removeprefix("text_model.")
        state[name if inside.startswith("text_projection") or not prefix else f"text_model.{inside}"] = value
    if prefix:
        state["text_model.embeddings.position_ids"] = torch.arange(LENGTH)[None]
    values = json.loads(config.to_json_string(use_diff=False))
    values.update(model_type="clip_text_model", architectures=["CLIPTextModelWithProjection"], torch_dtype="float16")
    write_json(dir / "config.json", values)
    save(dir, state, torch.float16)
    io = {"ids": ids.to(torch.int32), "last": out.last_hidden_state, "hidden": torch.stack(out.hidden_states, 1), "embeds": out.text_embeds, "skipped": skipped}
    save_file({name: value.contiguous() for name, value in io.items()}, dir / "io.safetensors")


def safety(dir):
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
    config = CLIPConfig(text_config=sizes(vocab_size=8, max_position_embeddings=4), vision_config=sizes(image_size=SIDE, patch_size=8), projection_dim=24)
    model = randomised(StableDiffusionSafetyChecker(config), seed=11)
    pixels = 2 * torch.randn(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        embeds = model.visual_projection(model.vision_model(pixels)[1])
        # Limits among the cosines, so that some images pass some of them, and special care decides some.
        for places, limits, share in [(model.concept_embeds, model.concept_embeds_weights, 0.97), (model.special_care_embeds, model.special_care_embeds_weights, 0.6)]:
            places.copy_(torch.randn(places.shape, generator=torch.Generator().manual_seed(len(places))))
            limits.copy_(torch.quantile(cosine_distance(embeds, places), share, dim=0))
        care = cosine_distance(embeds, model.special_care_embeds) - model.special_care_embeds_weights
        cos = cosine_distance(embeds, model.concept_embeds)
        # One image is unsafe only because it needs special care.
        first = int((care > 0.001).any(1).nonzero()[0])
        model.concept_embeds_weights.copy_(torch.maximum(model.concept_embeds_weights, cos.max(0).values + 0.02))
        model.concept_embeds_weights[4] = cos[first, 4] + 0.006
        model.concept_embeds_weights[7] = cos[:, 7].max() - 0.004
        images = np.zeros((6, 8, 8, 3), dtype=np.float32)
        _, unsafe = model(pixels, images)
        io = {"pixels": pixels, "unsafe": torch.tensor(unsafe).to(torch.int32), "care": care.contiguous(),
              "cosines": cosine_distance(embeds, model.concept_embeds)}
    assert 0 < sum(unsafe) < 6, unsafe
    model.config.save_pretrained(dir)
    save(dir, {f"{name}": value for name, value in model.state_dict().items()}, torch.float32)
    save_file({name: value.contiguous() for name, value in io.items()}, dir / "io.safetensors")


def images(dir):
    """Pictures, and Pillow's resized ones; and CLIP's preprocessing spelled out with Pillow and numpy."""
    cases = [(45, 37, 32, 32), (20, 64, 32, 102), (64, 48, 64, 20), (11, 7, 33, 29), (37, 45, 5, 3)]
    io = {}
    for i, (w, h, nw, nh) in enumerate(cases):
        rgb = picture(w, h, i)
        io[f"{i}.image"] = torch.from_numpy(rgb)
        for name, filter in [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC), ("lanczos", Image.LANCZOS)]:
            io[f"{i}.{name}"] = torch.from_numpy(np.array(Image.fromarray(rgb).resize((nw, nh), filter)))
    for i, (w, h) in enumerate([(45, 37), (20, 64), (64, 48)]):
        rgb = Image.fromarray(picture(w, h, 10 + i))
        short = min(w, h)
        nw, nh = (SIDE, int(SIDE * h / w)) if w <= h else (int(SIDE * w / h), SIDE)
        array = np.array(rgb.resize((nw, nh), Image.BICUBIC))
        top, left = (nh - SIDE) // 2, (nw - SIDE) // 2
        array = array[top:top + SIDE, left:left + SIDE].astype(np.float32) / 255
        array = (array - np.array([0.48145466, 0.4578275, 0.40821073], np.float32)) / np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
        io[f"clip{i}.image"], io[f"clip{i}.pixels"] = torch.from_numpy(np.array(rgb)), torch.from_numpy(array.transpose(2, 0, 1).copy())
    save_file({name: value.contiguous() for name, value in io.items()}, dir / "io.safetensors")


def onnx_models(dir):
    import onnx, onnxruntime
    from onnx import TensorProto as T, helper as h, numpy_helper as nph
    rng = np.random.default_rng(5)
    rand = lambda *shape: (rng.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:]), 1))).astype(np.float32)
    init = lambda name, value: nph.from_array(value, name)

    def write(name, nodes, inputs, outputs, inits=(), opset=17, check=True):
        graph = h.make_graph(nodes, name, inputs, outputs, list(inits))
        model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset), h.make_opsetid("com.example", 1)] if not check else [h.make_opsetid("", opset)],
                             producer_name="make.py", ir_version=8)
        if check:
            onnx.checker.check_model(model)
        (dir / f"{name}.onnx").write_bytes(model.SerializeToString())
        return model

    io = {"images": torch.from_numpy(np.stack([picture(12, 10, 40 + i) for i in range(BATCH)]))}
    normal = (np.stack([picture(12, 10, 40 + i) for i in range(BATCH)]).astype(np.float32) / 255 - np.array([0.5, 0.4, 0.3], np.float32)) / np.array([0.2, 0.25, 0.3], np.float32)

    def net(batch, side=("h", "w"), reshape_batch=None, softmax=False, nhwc=False):
        nodes, x = [], "image"
        if nhwc:
            nodes.append(h.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2])); x = "planes"
        nodes += [h.make_node("Conv", [x, "w1", "b1"], ["c1"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], name="conv1"),
                  h.make_node("Relu", ["c1"], ["r1"]), h.make_node("GlobalAveragePool", ["r1"], ["pool"])]
        if reshape_batch:
            nodes.append(h.make_node("Reshape", ["pool", "shape"], ["flat"]))
        else:
            nodes.append(h.make_node("Flatten", ["pool"], ["flat"]))
        nodes.append(h.make_node("Gemm", ["flat", "w2", "b2"], ["scores" if softmax else "logits"], transB=1))
        if softmax:
            nodes.append(h.make_node("Softmax", ["scores"], ["logits"], axis=1))
        inits = [init("w1", w1), init("b1", b1), init("w2", w2), init("b2", b2)]
        if reshape_batch:
            inits.append(init("shape", np.array([reshape_batch, 8], np.int64)))
        shape = [batch, 10, 12, 3] if nhwc else [batch, 3, 10, 12]
        return nodes, [h.make_tensor_value_info("image", T.FLOAT, shape)], [h.make_tensor_value_info("logits", T.FLOAT, [batch, 4])], inits

    w1, b1, w2, b2 = 3 * rand(8, 3, 3, 3), rand(8), 4 * rand(4, 8), rand(4)
    expected = None
    for name, batch, options in [("symbolic", "n", {}), ("one", 1, {}), ("fixed", 2, {"reshape_batch": 2}), ("shares", "n", {"softmax": True}), ("nhwc", "n", {"nhwc": True})]:
        model = write(name, *net(batch, **options))
        session = onnxruntime.InferenceSession(model.SerializeToString())
        x = normal if options.get("nhwc") else normal.transpose(0, 3, 1, 2)
        if batch == "n":
            out = session.run(None, {"image": x})[0]
        elif batch == 1:
            out = np.concatenate([session.run(None, {"image": x[i:i + 1]})[0] for i in range(BATCH)])
        else:
            out = np.concatenate([session.run(None, {"image": np.stack([x[i]] * 2)})[0][:1] for i in range(BATCH)])
        io[name] = torch.from_numpy(out)
    # A byte input, and two outputs.
    nodes, _, _, inits = net("n")
    nodes = [h.make_node("Cast", ["bytes"], ["image"], to=T.FLOAT)] + nodes + [h.make_node("Identity", ["flat"], ["features"])]
    outs = [h.make_tensor_value_info("features", T.FLOAT, ["n", 8]), h.make_tensor_value_info("logits", T.FLOAT, ["n", 4])]
    model = write("bytes", nodes, [h.make_tensor_value_info("bytes", T.UINT8, ["n", 3, 10, 12])], outs, inits)
    raw = np.stack([picture(12, 10, 40 + i) for i in range(BATCH)]).transpose(0, 3, 1, 2)
    io["bytes"] = torch.from_numpy(onnxruntime.InferenceSession(model.SerializeToString()).run(["logits"], {"bytes": raw})[0])
    # Damage: an operator that nobody has, weights in another file, a weight that claims more than it holds, NaN, a cut file.
    nodes, ins, outs, inits = net("n")
    nodes[1] = h.make_node("FrobnicateRelu", ["c1"], ["r1"], domain="com.example", name="frob")
    write("unknown", nodes, ins, outs, inits, check=False)
    nodes, ins, outs, inits = net("n")
    far = onnx.TensorProto(name="w1", data_type=T.FLOAT, dims=[8, 3, 3, 3], data_location=T.EXTERNAL)
    far.external_data.add(key="location", value="/etc/hostname")
    write("external", nodes, ins, outs, [far] + inits[1:], check=False)
    huge = onnx.TensorProto(name="w1", data_type=T.FLOAT, dims=[1 << 40, 3, 3, 3], raw_data=w1.tobytes())
    write("huge", nodes, ins, outs, [huge] + inits[1:], check=False)
    write("nan", nodes, ins, outs, inits[:2] + [init("w2", w2 * np.nan)] + inits[3:], check=False)
    (dir / "cut.onnx").write_bytes((dir / "one.onnx").read_bytes()[:500])
    save_file({name: value.contiguous() for name, value in io.items()}, dir / "io.safetensors")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    def folder(name):
        (root / name).mkdir(parents=True, exist_ok=True)
        return root / name
    onnx_models(folder("onnx"))
    images(folder("images"))
    vocab, merges = clip_vocabulary(folder("clip-f16"))
    clip(folder("clip"), vocab, merges, torch.float32)
    clip(folder("clip-f16"), vocab, merges, torch.float16, shards=True, act="gelu", eos=2, whole=False)
    siglip(folder("siglip"), torch.float32)
    text_encoder(folder("text-encoder"), vocab, merges, False)
    text_encoder(folder("text-encoder-early"), vocab, merges, True)
    safety(folder("safety"))


main()
