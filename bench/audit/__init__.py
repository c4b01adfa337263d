"""Audits: can the numbers of a defense be trusted?"""
