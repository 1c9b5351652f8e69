"""The one door that every file goes through before anything reads it.

`fold`, `inspect` and `check` open files that somebody else made. Before a reader, ours or another library's,
gets to see one, it is known here: that it is a regular file and lies where it may (`files`), how many bytes
it has and how many it says that it has, packed and unpacked (`zips`, `arrays`, `onnx_file`, `openvino_ir`,
`torch_save`), how deep it nests (`pickle_survey`, `wire`), that there is memory for it (`memory`). Where a
reader is written in C++ and a file may bring it down, it is tried in a process of its own (`rehearsal`).

It imports neither torch nor onnx nor another reader, so that every room may use it; all of it raises
`UnusableInput`, in one line.
"""
