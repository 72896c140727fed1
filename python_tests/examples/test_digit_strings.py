"""The right axis of time learns to read. The wrong one does not."""

from example_runs import result_of


def test_columns_as_time_read_and_channels_do_not(tmp_path):
    networks = result_of("digit_strings.py", tmp_path, "--steps", "280")["networks"]
    wrong = {name: each["wrong_characters"] for name, each in networks.items()}
    assert wrong["channels as time"] > 0.8
    assert wrong["columns as time"] < 0.6 and wrong["fastctc's CRNN"] < 0.6
    assert (tmp_path / "readings.png").stat().st_size > 10_000
