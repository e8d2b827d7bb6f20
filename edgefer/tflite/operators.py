"""The operators and versions that each target supports, for lint.

The tables of the two runtimes were measured: every operator and version of the schema was tried with the runtime's
Interpreter(). tests/tflite/test_lint.py measures the installed one again. MediaPipe 1.2.2, tested in the same way, supports all
that ai-edge-litert supports, and more. The Edge TPU's table is from documents, since its compiler is closed: Coral's list
of supported operators, each with the newest version in TensorFlow 2.5
(tensorflow/lite/tools/versioning/runtime_version.cc), which the last compiler was built with.
"""

# fmt: off
TFLITE_RUNTIME = {  # 2.14.0
    "ABS": 5, "ADD": 5, "ADD_N": 1, "ARG_MAX": 3, "ARG_MIN": 3, "ASSIGN_VARIABLE": 1, "ATAN2": 1,
    "AVERAGE_POOL_2D": 3, "BATCH_MATMUL": 4, "BATCH_TO_SPACE_ND": 4, "BIDIRECTIONAL_SEQUENCE_LSTM": 3,
    "BIDIRECTIONAL_SEQUENCE_RNN": 3, "BITCAST": 1, "BITWISE_XOR": 1, "BROADCAST_ARGS": 1, "BROADCAST_TO": 3,
    "BUCKETIZE": 1, "CALL_ONCE": 1, "CAST": 5, "CEIL": 1, "COMPLEX_ABS": 1, "CONCATENATION": 4, "CONV_2D": 7,
    "CONV_3D": 1, "CONV_3D_TRANSPOSE": 1, "COS": 1, "CUMSUM": 1, "DENSIFY": 1, "DEPTHWISE_CONV_2D": 7,
    "DEPTH_TO_SPACE": 2, "DEQUANTIZE": 5, "DIV": 2, "DYNAMIC_UPDATE_SLICE": 1, "ELU": 1, "EMBEDDING_LOOKUP": 3,
    "EMBEDDING_LOOKUP_SPARSE": 1, "EQUAL": 4, "EXP": 2, "EXPAND_DIMS": 1, "FAKE_QUANT": 2, "FILL": 4, "FLOOR": 1,
    "FLOOR_DIV": 3, "FLOOR_MOD": 2, "FULLY_CONNECTED": 10, "GATHER": 6, "GATHER_ND": 4, "GELU": 2, "GREATER": 2,
    "GREATER_EQUAL": 3, "HARD_SWISH": 1, "HASHTABLE": 1, "HASHTABLE_FIND": 1, "HASHTABLE_IMPORT": 1,
    "HASHTABLE_LOOKUP": 1, "HASHTABLE_SIZE": 1, "IF": 1, "IMAG": 1, "L2_NORMALIZATION": 2, "L2_POOL_2D": 1,
    "LEAKY_RELU": 2, "LESS": 3, "LESS_EQUAL": 2, "LOCAL_RESPONSE_NORMALIZATION": 1, "LOG": 1, "LOGICAL_AND": 1,
    "LOGICAL_NOT": 1, "LOGICAL_OR": 1, "LOGISTIC": 3, "LOG_SOFTMAX": 2, "LSH_PROJECTION": 1, "LSTM": 4,
    "MATRIX_DIAG": 1, "MATRIX_SET_DIAG": 1, "MAXIMUM": 4, "MAX_POOL_2D": 3, "MEAN": 3, "MINIMUM": 4, "MIRROR_PAD": 3,
    "MUL": 7, "MULTINOMIAL": 1, "NEG": 1, "NON_MAX_SUPPRESSION_V4": 1, "NON_MAX_SUPPRESSION_V5": 1, "NOT_EQUAL": 3,
    "ONE_HOT": 1, "PACK": 4, "PAD": 4, "PADV2": 4, "POW": 1, "PRELU": 1, "QUANTIZE": 3, "RANDOM_STANDARD_NORMAL": 1,
    "RANDOM_UNIFORM": 1, "RANGE": 2, "RANK": 1, "READ_VARIABLE": 1, "REAL": 1, "REDUCE_ALL": 1, "REDUCE_ANY": 1,
    "REDUCE_MAX": 3, "REDUCE_MIN": 3, "REDUCE_PROD": 2, "RELU": 3, "RELU6": 3, "RELU_0_TO_1": 1, "RELU_N1_TO_1": 1,
    "RESHAPE": 1, "RESIZE_BILINEAR": 4, "RESIZE_NEAREST_NEIGHBOR": 4, "REVERSE_SEQUENCE": 1, "REVERSE_V2": 3,
    "RFFT2D": 1, "RIGHT_SHIFT": 1, "RNN": 3, "ROUND": 1, "RSQRT": 2, "SCATTER_ND": 1, "SEGMENT_SUM": 1, "SELECT": 4,
    "SELECT_V2": 2, "SHAPE": 1, "SIGN": 2, "SIN": 1, "SKIP_GRAM": 1, "SLICE": 6, "SOFTMAX": 3, "SPACE_TO_BATCH_ND": 4,
    "SPACE_TO_DEPTH": 2, "SPARSE_TO_DENSE": 3, "SPLIT": 4, "SPLIT_V": 2, "SQRT": 1, "SQUARE": 1,
    "SQUARED_DIFFERENCE": 2, "SQUEEZE": 2, "STRIDED_SLICE": 8, "SUB": 5, "SUM": 2, "SVDF": 4, "TANH": 3, "TILE": 3,
    "TOPK_V2": 3, "TRANSPOSE": 6, "TRANSPOSE_CONV": 4, "UNIDIRECTIONAL_SEQUENCE_LSTM": 4,
    "UNIDIRECTIONAL_SEQUENCE_RNN": 3, "UNIQUE": 1, "UNPACK": 4, "UNSORTED_SEGMENT_MAX": 1, "UNSORTED_SEGMENT_MIN": 1,
    "UNSORTED_SEGMENT_PROD": 1, "UNSORTED_SEGMENT_SUM": 1, "VAR_HANDLE": 1, "WHERE": 2, "WHILE": 1, "ZEROS_LIKE": 1,
}

LITERT = TFLITE_RUNTIME | {  # ai-edge-litert 2.1.6: what differs
    "ADD": 6, "CAST": 8, "CONCATENATION": 6, "CONV_2D": 8, "COS": 2, "DEQUANTIZE": 8, "DILATE": 1,
    "DYNAMIC_UPDATE_SLICE": 6, "EMBEDDING_LOOKUP": 5, "EQUAL": 5, "FULLY_CONNECTED": 14, "GATHER": 7, "GATHER_ND": 5,
    "GELU": 3, "LOG": 2, "MUL": 8, "NOT_EQUAL": 4, "PAD": 5, "PADV2": 5, "QUANTIZE": 6, "REDUCE_WINDOW": 1,
    "RSQRT": 3, "SIN": 2, "SLICE": 8, "SOFTMAX": 4, "SQRT": 2, "STABLEHLO_ADD": 1, "STABLEHLO_AND": 1,
    "STABLEHLO_CASE": 1, "STABLEHLO_COMPOSITE": 1, "STABLEHLO_GATHER": 1, "STABLEHLO_MAXIMUM": 1,
    "STABLEHLO_MINIMUM": 1, "STABLEHLO_MULTIPLY": 1, "STABLEHLO_PAD": 1, "STABLEHLO_REDUCE_WINDOW": 1,
    "STABLEHLO_RNG_BIT_GENERATOR": 1, "STABLEHLO_SCATTER": 1, "STABLEHLO_SHIFT_LEFT": 1, "TRANSPOSE": 9,
    "TRANSPOSE_CONV": 5, "UNPACK": 5,
}

LITERT_2_2 = LITERT | {  # ai-edge-litert 2.2.0 and 2.3.0: what differs from 2.1.6
    "BROADCAST_TO": 4, "CAST": 9, "CONCATENATION": 7, "DEQUANTIZE": 9, "FILL": 5, "GATHER": 8, "GATHER_ND": 6, "PACK": 5,
    "PAD": 6, "PADV2": 6, "REVERSE_V2": 4, "SPLIT": 5, "SPLIT_V": 3, "UNPACK": 6,
}

EDGETPU = {
    "ADD": 3, "AVERAGE_POOL_2D": 3, "CONCATENATION": 3, "CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "EXPAND_DIMS": 1,
    "FULLY_CONNECTED": 9, "L2_NORMALIZATION": 2, "LOGISTIC": 3, "LSTM": 4, "MAXIMUM": 4, "MAX_POOL_2D": 3, "MEAN": 3,
    "MINIMUM": 4, "MUL": 4, "PACK": 3, "PAD": 3, "PRELU": 1, "QUANTIZE": 2, "REDUCE_MAX": 3, "REDUCE_MIN": 3,
    "RELU": 3, "RELU6": 3, "RELU_N1_TO_1": 1, "RESHAPE": 1, "RESIZE_BILINEAR": 4, "RESIZE_NEAREST_NEIGHBOR": 4,
    "RSQRT": 2, "SLICE": 5, "SOFTMAX": 3, "SPACE_TO_DEPTH": 2, "SPLIT": 4, "SQUARED_DIFFERENCE": 2, "SQUEEZE": 2,
    "STRIDED_SLICE": 5, "SUB": 5, "SUM": 2, "TANH": 3, "TRANSPOSE": 5, "TRANSPOSE_CONV": 3,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 3,
}
# fmt: on

# Custom operators in both runtimes: neither reports these as unresolved.
BUILT_IN_CUSTOM = ("AudioSpectrogram", "Mfcc", "NumericVerify", "TFLite_Detection_PostProcess")

# MediaPipe's custom operators without kernels in either runtime. XNNPACK, the default of both, computes them in float, so
# they do not run with reference kernels or without XNNPACK.
XNNPACK_CUSTOM = ("Convolution2DTransposeBias", "MaxPoolingWithArgmax2D", "MaxUnpooling2D")
