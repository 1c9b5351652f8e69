"""Core ML programs (MIL), read from a saved file and computed with torch on the CPU, on any system.

Core ML itself runs on Apple's systems only. Here a file is checked elsewhere too: its operations are computed
by their definitions, in float32 or float64, with the weights exactly as the file stores them.

    .mlpackage ──program──▶ MilProgram ──evaluate──▶ outputs
"""
