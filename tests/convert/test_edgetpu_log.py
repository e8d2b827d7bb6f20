"""The log of the Edge TPU's compiler, as it is read."""

import pytest

from edgefer.convert.edgetpu import Outcome, parse_log
from edgefer.errors import RuntimeFault
from edgefer.tflite.placement import AFTER, DTYPE, LIMIT, MAPPED, RANK, UNSUPPORTED, VERSION
from tests.convert.edgetpu_logs import PARTLY, WHOLE


def test_recorded_log_is_parsed():
    log = parse_log(WHOLE)
    assert log.version == "16.0.384591198"
    assert (log.mapped, log.on_cpu) == (6, 0)
    assert (log.cached_bytes, log.cache_left_bytes, log.streamed_bytes) == (3 * 2**20, 7936, 0)
    assert log.outcomes[1] == Outcome(operator="MEAN", count=1, status=MAPPED)


def test_recorded_log_with_operators_on_the_cpu_is_parsed():
    log = parse_log(PARTLY)
    assert (log.mapped, log.on_cpu) == (37, 125)  # as the log itself says
    assert log.streamed_bytes == round(1.22 * 2**20)
    by_operator = {(outcome.operator, outcome.status): outcome.count for outcome in log.outcomes}
    assert by_operator["PAD", AFTER] == 17 and by_operator["PAD", MAPPED] == 1
    # lint uses the compiler's own wording
    assert {outcome.status for outcome in log.outcomes} == {UNSUPPORTED, AFTER, MAPPED, DTYPE, LIMIT, VERSION, RANK}


def test_log_without_sizes_is_parsed_and_other_text_is_refused():
    short = parse_log(
        "Edge TPU Compiler version 2.1.302470888\n\nOperator   Count   Status\n\nADD\t3\tMapped to Edge TPU\n"
    )
    assert (short.mapped, short.on_cpu, short.cached_bytes) == (3, 0, None)
    with pytest.raises(RuntimeFault, match="no log that edgefer can read"):
        parse_log("segmentation fault")
