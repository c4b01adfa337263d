"""From stored records to numbers: frames, worst cases, comparisons, caveats; no formatting."""
