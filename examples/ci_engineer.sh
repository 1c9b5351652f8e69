#!/usr/bin/env bash
# In a job: the exported file is held against the network, with reports; later files against outputs that were kept.
set -euo pipefail
reparamkit fold repvgg_toy -o net.onnx
reparamkit check repvgg_toy net.onnx --junit check.xml --html check.html --save-inputs in.npz --save-outputs out.npz
reparamkit check - net.onnx --reference-outputs out.npz --inputs in.npz
