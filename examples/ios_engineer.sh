#!/usr/bin/env bash
# For an app: a package in float16 that takes the camera's pixels, and one of the bare network, evaluated on any system.
set -euo pipefail
reparamkit fold mobileone_toy -o App.mlpackage --coreml-precision float16 --image-input --image-mean 0.5,0.5,0.5 --image-std 0.25,0.25,0.25
reparamkit fold mobileone_toy -o Net.mlpackage --coreml-precision float16
reparamkit check mobileone_toy Net.mlpackage
