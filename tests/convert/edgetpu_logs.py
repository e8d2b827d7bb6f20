"""What edgetpu_compiler 16.0 -s prints; tables and figures as in logs that users posted."""

WHOLE = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 371 ms.

Input model: ./int8.tflite
Input size: 3.11MiB
Output model: ./int8_edgetpu.tflite
Output size: 3.17MiB
On-chip memory used for caching model parameters: 3.00MiB
On-chip memory remaining for caching model parameters: 7.75KiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 6
Operation log: ./int8_edgetpu.log

Operator                       Count      Status

CONV_2D                        4          Mapped to Edge TPU
MEAN                           1          Mapped to Edge TPU
FULLY_CONNECTED                1          Mapped to Edge TPU
Compilation child process completed within timeout period.
Compilation succeeded!
"""
PARTLY = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 12264 ms.

Input model: model2.tflite
Input size: 8.11MiB
Output model: model2_edgetpu.tflite
Output size: 9.47MiB
On-chip memory used for caching model parameters: 6.86MiB
On-chip memory remaining for caching model parameters: 0.00B
Off-chip memory used for streaming uncached model parameters: 1.22MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 162
Operation log: model2_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will instead run on the CPU, which is slower. If possible, consider updating your model to use only operations supported by the Edge TPU. For details, visit g.co/coral/model-reqs.
Number of operations that will run on Edge TPU: 37
Number of operations that will run on CPU: 125

Operator                       Count      Status

TRANSPOSE                      70         Operation not supported
PAD                            17         More than one subgraph is not supported
PAD                            1          Mapped to Edge TPU
DEQUANTIZE                     2          Operation is working on an unsupported data type
QUANTIZE                       1          Operation is otherwise supported, but not mapped due to some unspecified limitation
RESIZE_NEAREST_NEIGHBOR        1          Operation version not supported
PACK                           24         Tensor has unsupported rank (up to 3 innermost dimensions mapped)
CONV_2D                        36         Mapped to Edge TPU
ADD                            10         More than one subgraph is not supported
Compilation child process completed within timeout period.
Compilation succeeded!
"""
FAILED = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.
ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has dynamic-sized tensors.
Compilation failed: Model failed in Tflite interpreter. Please ensure model can be loaded/run in Tflite interpreter.
Compilation child process completed within timeout period.
Compilation failed!
"""
