"""A result as JUnit XML: a case for each budget, one for the run itself."""

from xml.etree import ElementTree

from loadtests.job.budget import BudgetState
from loadtests.job.run_result import RunExit, RunResult


def junit_xml(result: RunResult) -> bytes:
    """Returns the file. An undecided budget is a skipped case, unless it fails the run."""
    seconds = f"{result.scenario.seconds:.3f}"
    suite = ElementTree.Element(
        "testsuite", name=f"loadtests.{result.scenario.name}", time=seconds, timestamp=result.started
    )
    failures = skipped = 0
    for one in result.verdicts:
        case = ElementTree.SubElement(
            suite, "testcase", name=one.budget.title, classname=f"loadtests.{result.scenario.name}"
        )
        if one in result.broken:
            failures += 1
            ElementTree.SubElement(case, "failure", message=_plain(one.text), type=one.state.value)
        elif one.state is BudgetState.UNDECIDED:
            skipped += 1
            ElementTree.SubElement(case, "skipped", message=_plain(one.text))
    case = ElementTree.SubElement(
        suite, "testcase", name="run", classname=f"loadtests.{result.scenario.name}", time=seconds
    )
    if result.problems or result.interrupted:
        failures += 1
        text = "; ".join(result.problems) or RunExit.INTERRUPTED.meaning
        ElementTree.SubElement(case, "failure", message=_plain(text), type="problem")
    for name, value in (
        ("tests", len(result.verdicts) + 1),
        ("failures", failures),
        ("skipped", skipped),
        ("errors", 0),
    ):
        suite.set(name, str(value))
    if result.bottlenecks:
        ElementTree.SubElement(suite, "system-out").text = _plain("\n".join(result.bottlenecks))
    whole = ElementTree.Element("testsuites")
    whole.append(suite)
    ElementTree.indent(whole)
    return bytes(ElementTree.tostring(whole, encoding="utf-8", xml_declaration=True)) + b"\n"


def _plain(text: str) -> str:
    """Returns the text without characters that XML has not: servers say what they like."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)
