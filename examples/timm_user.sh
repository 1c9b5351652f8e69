#!/usr/bin/env bash
# A network of timm's: what folds of it, the ONNX file, and the file against timm's own network.
set -euo pipefail
network=${1:-timm:repghostnet_050}
reparamkit inspect "$network" --input 1x3x64x64
reparamkit fold "$network" --input 1x3x64x64 -o net.onnx
reparamkit check "$network" net.onnx
