"""What block files written for Mage import, served under its names where the real `mage_ai` is not installed.

`names.py` lists what is served and by what; `alias.py` makes the modules; the other files hold what has no counterpart
among Streamline's own names.
"""
