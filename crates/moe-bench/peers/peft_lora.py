"""A training step, or a forward pass, of one LoRA with Hugging Face PEFT, as the library comes: less work than MoE-CL's."""

import os

import program
import torch
import torch.nn.functional as F

os.environ["HF_HUB_OFFLINE"] = "1"
import peft
import transformers


def main():
    chosen = program.arguments(__doc__)
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        chosen.base, dtype=chosen.dtype, attn_implementation="sdpa", num_labels=chosen.classes)
    base.config.pad_token_id = 0
    model = peft.get_peft_model(base, peft.LoraConfig(
        task_type="SEQ_CLS", r=chosen.rank, lora_alpha=chosen.alpha, lora_dropout=chosen.dropout,
        target_modules=["gate_proj", "up_proj", "down_proj"]))
    ids, mask, labels = program.batch(chosen, base.config.vocab_size)
    given = dict(input_ids=ids, attention_mask=mask, use_cache=False)
    if chosen.mode == "train":
        model.train()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=chosen.rate, weight_decay=0.01)

        def step():
            loss = model(**given, labels=labels).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()
    else:
        model.eval()

        def step():
            with torch.inference_mode():
                model(**given)

    rows, products = chosen.batch * chosen.len, []
    for weight in (p for name, p in base.named_parameters() if ".layers.0." in name and p.dim() == 2 and "lora" not in name):
        x = torch.randn(rows, weight.shape[1]).to(chosen.dtype)
        products.append((lambda x=x, w=weight: F.linear(x, w), 2 * rows * weight.numel()))
    program.serve(step, products)


if __name__ == "__main__":
    main()
