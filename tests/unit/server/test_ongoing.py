from runglass.server.ongoing import Ongoing


def test_the_end_of_the_server_is_told_to_whoever_is_still_answering() -> None:
    ongoing, ended = Ongoing(), []
    with ongoing.ended_by(lambda: ended.append("first")):
        with ongoing.ended_by(lambda: ended.append("over before")):
            pass
        ongoing.end_all()
    assert ended == ["first"]


def test_an_answer_that_begins_while_the_server_stops_ends_at_once() -> None:
    ongoing, ended = Ongoing(), []
    ongoing.end_all()
    with ongoing.ended_by(lambda: ended.append("late")):
        assert ended == ["late"]


def test_an_answer_that_ends_another_does_not_disturb_the_rest() -> None:
    ongoing, ended = Ongoing(), []

    def end_and_leave() -> None:
        ended.append("one")
        other.__exit__(None, None, None)

    other = ongoing.ended_by(lambda: ended.append("two"))
    with ongoing.ended_by(end_and_leave):
        other.__enter__()
        ongoing.end_all()
    assert "one" in ended
