"""Chat templates from strangers: whatever they try ends quickly, in one line, in little memory."""

import contextlib
import time
import tracemalloc

import pytest

from ggq.errors import FormatError, GGQError, UsageError
from ggq.runtime.template.sandbox import BASE_SIZE
from ggq.runtime.template.template import ChatTemplate

pytestmark = pytest.mark.slow  # each takes the processor time that a template may have

USER = {"role": "user", "content": "hi"}

HOSTILE = {
    "loop1e9": "{% for i in range(1000000000) %}x{% endfor %}",
    "mul": '{{ "a"*10**9 }}',
    "mul2": '{{ 10**9*"a" }}',
    "mullist": "{{ ([0]*10**9)|length }}",
    "multuple": "{{ ((0,1)*10**9)|length }}",
    "percent": '{{ "%1000000000d" % 1 }}',
    "format": '{{ "{:1000000000}".format(1) }}',
    "fmt_filter": '{{ "%1000000000d"|format(1) }}',
    "center": '{{ "a"|center(1000000000) }}',
    "ljust": '{{ "a".ljust(1000000000) }}',
    "zfill": '{{ "a".zfill(1000000000) }}',
    "expand": '{{ "\t".expandtabs(1000000000) }}',
    "indent": '{{ "a\nb"|indent(1000000000) }}',
    "indent2": '{{ ("a\n"*100000)|indent("x"*100000) }}',
    "batch": "{{ [1]|batch(1000000000,0)|list }}",
    "slice": "{{ [1]|slice(1000000000)|list }}",
    "lipsum": "{{ lipsum(1000000) }}",
    "join": "{{ range(99999)|join('x'*1000000) }}",
    "join_m": "{{ ('x'*1000000).join(['a']*100000) }}",
    "macro": "{% macro f(n) %}{{ f(n-1) }}{{ f(n-1) }}{% endmacro %}{{ f(10) }}",
    "out": "{% set s='x'*1000000 %}{% for i in range(99999) %}{{ s }}{% endfor %}",
    "mapdefault": "{% set s='x'*1000000 %}{{ (range(99999)|map('default',s)|list)|string|length }}",
    "sum": "{{ ([[1]*1000]*900)|sum(start=[]) |length}}",
    "round": "{{ 5|round(-1000000000) }}",
    "tobytes": "{{ (5).to_bytes(1000000000,'big') }}",
    "jsonindent": "{{ [1]|tojson(indent=1000000000) }}",
    "escape": "{{ ''.__class__.__mro__ }}",
    "escape2": "{{ cycler.__init__.__globals__ }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{os}}",
    "strftime": "{{ strftime_now('%1000000000Y') }}",
    "recursive": "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "selfblock": "{% block a %}{{ self.a() }}{% endblock %}",
    "split_iter": "{% for c in 'x'*1000000 %}{% for d in 'x'*1000000 %}{% endfor %}{% endfor %}",
    "wordwrap": "{{ ('x'*100000)|wordwrap(1) }}",
    "xmlattr": "{{ {'a':1}|xmlattr }}",
    "many calls": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}"
    "{{ f(40) }}",
    "empty loops": "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}"
    "{% endfor %}",
    "json": "{% set ns = namespace(x=[1]) %}{% for i in range(900) %}"
    "{% set ns.x = [ns.x, 1, 1, 1, 1, 1] %}{% endfor %}{{ ns.x | tojson(indent=900) }}",
}
GROWING = {
    "double": "{% set ns.s = ns.s ~ ns.s %}",
    "double+": "{% set ns.s = ns.s + ns.s %}",
    "replace": "{% set ns.s = ns.s|replace('a',ns.s) %}",
    "replace_m": "{% set ns.s = ns.s.replace('a',ns.s) %}",
    "dag": "{% set ns.x=[ns.x,ns.x] %}",
    "dagdict": "{% set ns.x={'a':ns.x,'b':ns.x} %}",
    "dagdictcall": "{% set ns.x=dict(a=ns.x,b=ns.x) %}",
    "append": "{% set ns.x = [ns.x] %}{{ ns.x.append(ns.x[0]) }}",
    "append itself": "{{ ns.x.append(ns.x) }}",
    "extend": "{{ ns.x.extend(ns.x) }}",
    "extend text": "{{ ns.x.extend('x' * 400000) }}",
    "insert": "{{ ns.x.insert(0, 'x' * 40000) }}",
    "setdefault": "{% set ns.d = {} if i == 0 else ns.d %}{{ ns.d.setdefault(i, 'x' * 40000) }}",
    "update": "{% set ns.d = {} if i == 0 else ns.d %}{{ ns.d.update({i: 'x' * 40000}) }}",
    "update by name": "{% set ns.d = {} if i == 0 else ns.d %}{{ ns.d.update(a='x' * 400000) }}",
    "later": "{% set a = [] %}{% set b = [a, a, a] %}{{ a.append('x') }}",
    "later in a namespace": "{% set b = [ns.x] * 9 %}{{ ns.x.append('x') }}",
    "endless": "{% for x in ns.x %}{{ ns.x.append(x) }}{% endfor %}",
    "pow2": "{% set ns.n=ns.n*ns.n %}",
    "tuples": "{% set ns.x=(ns.x,ns.x) %}",
    "lists": "{% set ns.x=ns.x+ns.x %}",
    "blocks": "{% set s %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = s %}",
}
HOSTILE |= {
    name: "{% set ns = namespace(s='aaaa', x=[1], n=3) %}{% for i in range(60) %}"
    + step
    + "{% endfor %}"
    for name, step in GROWING.items()
}
LONG_RUNNING = {
    "nested": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "sorting": "{% for i in range(99999) %}{{ range(99999) | list | sort | length }}{% endfor %}",
}
GENERATED = {
    "parentheses": "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "nested ifs": "{% if 1 %}" * 4000 + "{% endif %}" * 4000,
    "nested loops": "{% for i in [1] %}" * 100 + "{% endfor %}" * 100,
    "long sum": "{{ " + "a+" * 9000 + "a }}",
    "variables": "{% set s = 'x' * 400000 %}"
    + "".join(f"{{% set a{i} = s ~ {i} %}}" for i in range(999)),
    "splits": "{% set s = 'x,' * 100000 %}"
    + "".join(f"{{% set a{i} = s.split(',') %}}" for i in range(999)),
    "too long": "x" * (1 << 17),
}


def refused(source):
    """Return the error's text and the seconds and bytes that it took."""
    tracemalloc.start()
    try:
        start = time.monotonic()
        with pytest.raises(GGQError) as caught:
            ChatTemplate(source).render([USER])
        seconds, peak = time.monotonic() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    return str(caught.value), seconds, peak


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_are_refused(name):
    _, _, peak = refused(HOSTILE[name])
    assert peak < 48 * BASE_SIZE


@pytest.mark.parametrize("use", ["list", "sort", "map('upper') | list", "reverse | list"])
def test_lists_of_letters_are_small(use):
    template = ChatTemplate("{{ ('x' * 20000) | " + use + " | length }}")
    assert template.render_text([USER]) == "20000"
    refused("{{ ('x' * 400000) | " + use + " | length }}")


@pytest.mark.parametrize("name", GENERATED)
def test_hostile_sources_are_refused(name):
    _, _, peak = refused(GENERATED[name])
    assert peak < 48 * BASE_SIZE


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_endless_templates_stop(name):
    message, seconds, _ = refused(LONG_RUNNING[name])
    assert "runs too long" in message
    assert seconds < 20  # about 1.1 s when the machine is free


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ namespace.__init__ }}",
        "{{ namespace(__class__=1) }}",
        "{{ self.__init__ }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ ''|attr('__class__') }}",
        "{{ [''] | map(attribute='__class__') | list }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{% include '/etc/hostname' %}",
    ],
)
def test_secrets_stay_out_of_reach(source):
    with contextlib.suppress(FormatError):
        assert ChatTemplate(source).render_text([USER]) in ("", "[Undefined]")


def test_changes_are_for_what_the_template_made():
    source = (
        "{% set ns = namespace(a=[3, 1]) %}{{ ns.a.append(2) }}{{ ns.a.insert(0, 'x') }}"
        "{{ ns.a.pop() }}{{ ns.a.pop(0) }}{% set d = {'k': 1} %}{% set _ = d.update({'l': 2}) %}"
        "{{ d.setdefault('m', 3) }}{{ d.pop('k') }}{{ ns.a.extend([5, 6]) }}{{ ns.a.remove(5) }}"
        "{{ ns.a.reverse() }}{{ ns.a }}{{ d }}"
    )
    want = "NoneNone2x31NoneNoneNone[6, 1, 3]{'l': 2, 'm': 3}"
    assert ChatTemplate(source).render_text([USER]) == want
    given = [{"role": "user", "content": ["a"]}]
    for source in ("{{ messages[0].content.append(1) }}", "{{ messages.pop() }}"):
        with contextlib.suppress(FormatError):
            ChatTemplate(source).render(given)
        assert given == [{"role": "user", "content": ["a"]}]


def test_refusal_is_the_templates_own_words_made_printable():
    with pytest.raises(UsageError, match=r"refuses this conversation: no\\x1b\[31m"):
        ChatTemplate("{{ raise_exception('no\x1b[31m') }}").render([USER])


def test_large_inputs_are_no_attack():
    source = (
        "{% set ns = namespace(all='') %}{% for m in messages %}"
        "{% set ns.all = ns.all ~ m.role ~ m.content.split('</think>')[-1].strip() %}{% endfor %}"
        "{{ ns.all }}"
    )
    messages = [{"role": "user", "content": f"{i} " * 200} for i in range(300)]
    text = ChatTemplate(source).render_text(messages)
    assert len(text) > 150_000
    big = [{"role": "user", "content": "word " * 400_000}]
    assert len(ChatTemplate("{{ messages[0].content | trim }}").render_text(big)) == 1_999_999
