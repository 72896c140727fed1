"""The right axis of time learns to read. The wrong one does not."""

from example_runs import result_of


def test_columns_as_time_read_and_channels_do_not(tmp_path):
    result = result_of("digit_strings.py", tmp_path, "--length", "3", "--steps", "300")
    exact = {name: each["exact"] for name, each in result["networks"].items()}
    assert exact["channels as time"] < 0.05
    assert exact["columns as time"] > 0.5 and exact["fastctc's CRNN"] > 0.5
    assert (tmp_path / "readings.png").stat().st_size > 10_000
