from gateway.serving.cpu_share import CpuShare


def test_the_cpu_share_is_that_of_the_time_between_two_samples() -> None:
    share = CpuShare(2.0)
    assert share.sample(5.0, 100.0) == 0.0
    assert share.sample(6.0, 101.0) == 0.5
    assert share.sample(6.0, 102.0) == 0.0
    assert share.sample(10.0, 102.0) == 0.0  # no time has passed
    share.restart()
    assert share.sample(50.0, 200.0) == 0.0
