"""What is wrong with this machine, this model, these settings: a sentence for each thing.

``finding.py`` says what a check yields; each other module holds checks of one kind, and
``examination.py`` (the list of all) runs them. A check starts nothing and changes nothing.
"""
