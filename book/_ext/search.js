/* Ranks by the weights that book/_ext/searching.py puts into the index. Sphinx sets this text behind
   its searchtools.js, whose look-up of words it replaces. */

// The stem of "quantise" is that of "quantize"; searching.py does the same.
const Porter = Stemmer;
Stemmer = function () {
  const porter = new Porter();
  this.stemWord = (word) => porter.stemWord(word.replace(BRITISH, "iz"));
};

// A whole title is worth more than any page's words, half of one as much; a function's name less.
Object.assign(Scorer, { title: 45, objPrio: { 0: 0, 1: 0, 2: 0 } });

// Who searches has a question; solutions and pages of functions come behind what answers it.
const PLACES = { "solutions/": 0.6, "api/": 0.7 };
Scorer.score = ([page, , , , score]) => {
  const place = Object.keys(PLACES).find((folder) => page.startsWith(folder));
  return score * (PLACES[place] ?? 1);
};

// A page that was opened from disk may not read another one for an excerpt.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

/* The pages that hold every word; where none does, those that hold any. A word that is nowhere is taken
   for a part of others. */
Search.performTermsSearch = (words, excluded) => {
  const { weights, docnames, titles, filenames } = Search._index;
  const pagesWith = (word) => {
    const whole = Object.hasOwn(weights, word);
    const meant = whole ? [word] : Object.keys(weights).filter((key) => key.includes(word));
    const found = new Map();
    for (const key of meant)
      for (let i = 0; i < weights[key].length; i += 2) {
        const [page, weight] = weights[key].slice(i, i + 2);
        found.set(page, Math.max(found.get(page) ?? 0, whole ? weight : weight / 2));
      }
    return found;
  };
  const asked = [...words].filter((word) => word.length > 2).map(pagesWith);
  const refused = [...excluded].map(pagesWith);
  const all = [...titles.keys()].filter((page) => !refused.some((pages) => pages.has(page)));
  const every = all.filter((page) => asked.length && asked.every((pages) => pages.has(page)));
  const any = all.filter((page) => asked.some((pages) => pages.has(page)));
  return (every.length ? every : any).map((page) => {
    const sum = asked.reduce((total, pages) => total + (pages.get(page) ?? 0), 0);
    return [docnames[page], titles[page], "", null, 20 + sum / 100, filenames[page]];
  });
};
