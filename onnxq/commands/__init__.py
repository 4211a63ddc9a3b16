"""What each command does: the stages composed, from a model and options to a result.

A module a command. Nothing is printed and nothing written; policy is the business of the stages.
"""
