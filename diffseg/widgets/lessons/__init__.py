"""One widget for each lesson, opened by a call of one line; a module is named as the chapter it belongs to.

In each module the logic comes first, as functions from a state to pictures and text; the widget below it is thin.
"""
