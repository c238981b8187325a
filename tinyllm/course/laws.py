"""Loaded by the process that grades: makes the exercises known to the checking suite."""

from tinyllm.course.exercise import exercises

exercises()
