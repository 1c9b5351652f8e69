#!/usr/bin/env bash
# A detector's checkpoint and its code: folded to ONNX without the heads that only training needs, the file against
# the checkpoint, and the numbers back in the code's own class for deployment.
set -euo pipefail
cp "$(dirname "$0")/detector/detector.py" .
python detector.py best.pth # stands for your training
reparamkit fold best.pth --model detector.py:build --key ema.model --input 1x3x64x64 --outputs 2 -o detector.onnx
reparamkit check best.pth detector.onnx --model detector.py:build --key ema.model --outputs 2
reparamkit fold best.pth --model detector.py:build --key ema.model --input 1x3x64x64 --into detector.py:deployed -o deploy.pth
