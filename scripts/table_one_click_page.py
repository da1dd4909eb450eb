def table(rows, models, real, family): return ''
