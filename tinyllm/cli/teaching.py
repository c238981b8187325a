"""Commands of the course: `chapters`, and for teachers `course`."""

from __future__ import annotations

import argparse
from typing import Any

from tinyllm.cli.output import print_json
from tinyllm.cli.parser import DONE, OURS, add_command, add_part


def add_chapters(commands: Any) -> None:
    chapters = add_command(commands, "chapters", _chapters, "the course's chapters: execute, run, test or open them")
    actions = chapters.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, help in (
        ("build", "execute them, and write their notebooks"),
        ("run", "print what they print"),
        ("test", "execute their short form: do all cells run, and are the notebooks theirs?"),
        ("open", "in Jupyter"),
    ):
        action = add_part(actions, name, help)
        action.add_argument("numbers", metavar="NN", nargs="*", help="which chapters, such as 05 (default: all)")
        if name == "test":
            action.add_argument("--full", action="store_true", help="with the experiments in full")
            action.add_argument("--kernel", action="store_true", help="the first one in a real kernel too")


def _chapters(options: argparse.Namespace) -> int:
    from tinyllm.course import command

    if options.action == "open":
        return command.open_chapters(options.numbers)
    if options.action == "run":
        command.run_chapters(options.numbers)
        return DONE
    if options.action == "build":
        result = command.build_chapters(options.numbers)
    else:
        result = command.check_chapters(options.numbers, options.full, options.kernel)
    faults = [fault for chapter in result.get("chapters", {}).values() for fault in chapter["faults"]]
    if options.json:
        print_json(result)
    else:
        print("\n".join(faults) or f"{len(result.get('chapters', result.get('built', {})))} chapters, no fault")
    return OURS if faults else DONE


def add_course(commands: Any) -> None:
    course = add_command(
        commands, "course", _course, "for teachers: the student edition, their own, and grading a class"
    )
    tasks = course.add_subparsers(dest="task", required=True, metavar="TASK")
    for name, help in (
        ("student", "the chapters without the solutions"),
        ("teacher", "the chapters with the solutions, as nbgrader's source"),
    ):
        edition = add_part(tasks, name, help)
        edition.add_argument("out", metavar="OUT", help="a new folder")
        edition.add_argument("numbers", metavar="NN", nargs="*", help="which chapters (default: all)")
    grade = add_part(tasks, "grade", "points for each exercise of each student, as CSV")
    grade.add_argument("folder", metavar="FOLDER", help="a folder for each student, with their notebooks")
    grade.add_argument("--out", metavar="FILE.csv", help="default: printed")
    grade.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="for each check (%(default)s)")
    grade.add_argument("--memory", type=float, default=1024.0, metavar="MIB", help="for each submission (%(default)s)")


def _course(options: argparse.Namespace) -> None:
    from tinyllm.course import command

    if options.task in ("student", "teacher"):
        result = command.make_edition(options.out, options.numbers, solutions=options.task == "teacher")
        if not options.json:
            print("\n".join(result["written"]))
    else:
        result = command.grade_class(options.folder, options.out, options.timeout, options.memory, options.json)
    if options.json:
        print_json(result)
