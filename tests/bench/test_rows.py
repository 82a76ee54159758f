from bench.load import summary
from bench.peers import rows


def test_rounds_repeat_no_prompt_but_both_sides_get_the_same():
    first, again, second = (rows.works(number, sustained=True) for number in (0, 0, 1))
    assert first == again
    for key, work in first.items():
        assert len(set(work.prompts)) == len(work.prompts)
        assert not set(work.prompts) & set(second[key].prompts)
    assert set(first) == {row.key for row in rows.ROWS}


def test_under_sustained_load_answers_are_unequal_and_more_than_there_are_streams():
    work = rows.works(0, sustained=True)["sustained_8"]
    assert len(work.prompts) == len(work.new_tokens) == 4 * work.streams
    assert all(rows.FEWEST_TOKENS <= tokens <= rows.MOST_TOKENS for tokens in work.new_tokens)
    assert len(set(work.new_tokens)) > work.streams
    assert "sustained_8" not in rows.works(0)


def test_the_warm_prompts_share_the_cold_ones_prefix_and_nothing_else_does():
    works = rows.works(3)
    prefix = works["prefix_cold"].prompts[0].split()[: rows.LONG_WORDS]
    assert all(
        prompt.split()[: rows.LONG_WORDS] == prefix for prompt in works["prefix_warm"].prompts
    )
    assert all(prompt.split()[:20] != prefix[:20] for prompt in works["prefill"].prompts)


def test_prompts_are_counted_as_tokens_and_first_tokens_in_milliseconds():
    works = rows.works(0)
    figures = summary(2.0, 640, [0.25], [])

    def words(prompts):
        return sum(len(prompt.split()) for prompt in prompts)

    assert rows.value("prefill", works["prefill"], figures, words) == 2000.0
    assert rows.value("streams_8", works["streams_8"], figures, words) == 320.0
    assert rows.value("prefix_warm", works["prefix_warm"], figures, words) == 250.0
    unknown = summary(2.0, 640, [], [])
    assert rows.value("prefix_warm", works["prefix_warm"], unknown, words) is None
