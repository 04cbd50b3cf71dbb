"""Headings in other languages: by their English text."""

LANGUAGES = ("en", "zh")
ZH = {
    "Table": "表",
    "Both modalities, batch size 512": "双模态，批大小 512",
    "Both modalities, batch size 512, CLIP ViT-L/14": "双模态，批大小 512，CLIP ViT-L/14",
    "Both modalities, batch size 512, further pairs": "双模态，批大小 512，其他编码器对",
    "Both modalities, batch size 32": "双模态，批大小 32",
    "Both modalities, other batch sizes": "双模态，其他批大小",
    "One modality": "单模态",
    "Other configurations of this sweep": "本次扫描的其他配置",
    "row": "行",
    "vision": "图像编码器",
    "text": "文本编码器",
    "fine-tuned": "微调",
    "batch size": "批大小",
    "D": "D",
    "lr": "学习率",
    "published": "发表值",
    "ours: best epoch": "本次：最佳轮次",
    "published inside": "发表值在区间内",
    "last epoch": "最后轮次",
    "cross-fitted": "交叉选轮",
    "behind the best": "落后最佳",
    "test accuracy": "测试准确率",
    "test F1 (weighted)": "测试 F1（加权）",
    "n": "n",
    "note": "备注",
}


def translated(text: str, lang: str) -> str:
    """A heading in a language of `LANGUAGES`."""
    return text if lang == "en" else ZH[text]
