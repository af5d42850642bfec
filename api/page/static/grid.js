// The keyboard in the list of machines, after the grid pattern of ARIA: the whole list is one tab stop, and the arrow
// keys move within it. What an open row shows has tab stops of its own.

const pageRows = 10; // that Page Up and Page Down move

// setUpGrid makes the [data-cell] elements in the [role=row] elements of grid one tab stop.
export function setUpGrid(grid) {
  grid.addEventListener('focusin', (event) => {
    const cell = event.target.closest('[data-cell]');
    if (cell) setTabStop(grid, cell);
  });
  grid.addEventListener('keydown', (event) => {
    const cell = event.target.closest('[data-cell]');
    if (!cell || event.altKey || event.metaKey || event.ctrlKey && !['Home', 'End'].includes(event.key)) return;
    const next = target(grid, cell, event);
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.scrollIntoView({ block: 'nearest' });
  });
}

// ensureTabStop makes the first row's name the tab stop if the present one is hidden or gone.
export function ensureTabStop(grid) {
  if (grid.querySelector('[data-cell][tabindex="0"]')?.checkVisibility()) return;
  const first = rows(grid).find((row) => row.querySelector('.toggle'));
  const cell = first?.querySelector('.toggle');
  if (cell) setTabStop(grid, cell);
}

function setTabStop(grid, cell) {
  for (const e of grid.querySelectorAll('[data-cell][tabindex="0"]')) e.tabIndex = -1;
  cell.tabIndex = 0;
}

const rows = (grid) => [...grid.querySelectorAll('.row')].filter((row) => row.checkVisibility());
const cells = (row) => [...row.querySelectorAll('[data-cell]')].filter((cell) => cell.checkVisibility());

// target returns the cell that a key moves to from cell, or undefined.
function target(grid, cell, { key, ctrlKey }) {
  const row = cell.closest('.row');
  const inRow = cells(row);
  const column = inRow.indexOf(cell);
  switch (key) {
    case 'ArrowLeft': return inRow[column - 1];
    case 'ArrowRight': return inRow[column + 1];
    case 'Home': if (!ctrlKey) return inRow[0]; break;
    case 'End': if (!ctrlKey) return inRow.at(-1); break;
  }
  const all = rows(grid);
  const index = all.indexOf(row);
  const to = {
    ArrowUp: index - 1, ArrowDown: index + 1, PageUp: Math.max(0, index - pageRows), PageDown: Math.min(all.length - 1, index + pageRows),
    Home: 0, End: all.length - 1,
  }[key];
  if (to === undefined || !all[to]) return undefined;
  const others = cells(all[to]);
  return others.find((other) => other.dataset.cell === cell.dataset.cell) ?? others[Math.min(column, others.length - 1)];
}
