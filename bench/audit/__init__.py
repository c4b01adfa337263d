"""Audits: are the numbers of a defense to be trusted?"""
