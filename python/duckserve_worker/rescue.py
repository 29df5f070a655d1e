"""One bad row must not fail its neighbours: a batch that raises is tried in halves, within bounds."""

import traceback

#: Calls of `predict` after the first.
MOST_CALLS = 256
#: Rows that failed alone before any batch was answered, after which the model is taken for broken.
HOPELESS_AFTER = 16


def describe(error):
    """Type and text of an exception, without its traceback."""
    text = " ".join(str(error).split())
    return {"type": type(error).__name__, "message": text[:500]}


def describe_type(error):
    return {"type": type(error).__name__, "message": ""}


def predict_rows(predict, rows, log):
    """Answers of ranges and failures of rows.

    `predict(start, end)` answers a range or raises. Gives ([(start, end, answer)], [(start, end, failure)]) which
    cover 0..rows in order. The text of an exception is given only to the row that raised it alone: it may tell of
    any row of its batch.
    """
    answered, failed = [], []
    calls = 0
    failed_alone = 0
    waiting = [(0, rows, None)]
    while waiting:
        start, end, known = waiting.pop()
        if known is not None and (calls >= MOST_CALLS or (failed_alone >= HOPELESS_AFTER and not answered)):
            failed.append((start, end, known))
            continue
        calls += known is not None
        try:
            answered.append((start, end, predict(start, end)))
        except Exception as error:
            if known is None or (end - start == 1 and failed_alone == 0):
                log(f"predict raised for {end - start} rows:\n{traceback.format_exc()}")
            if end - start == 1:
                failed_alone += 1
                failed.append((start, end, describe(error)))
            else:
                middle = (start + end) // 2
                told = describe(error) if getattr(error, "is_safe", False) else describe_type(error)
                waiting.append((middle, end, told))
                waiting.append((start, middle, told))
    return answered, failed
