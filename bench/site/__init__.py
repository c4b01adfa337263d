"""The site: static pages made from results folders."""
