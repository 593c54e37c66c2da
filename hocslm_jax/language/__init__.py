"""The language model of HocSLM: opened, pretrained, asked to describe, and its sentences scored."""
